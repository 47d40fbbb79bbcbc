//! The table of what several words mean together.

/// What several words stand for, before anything is left out; the longest counts. `a|b` is either,
/// `@word` a cue of what kind of question it is.
pub(super) const PHRASES: &str = "\
    how do|can|could|should|would|might|must|will|shall|did i|you|we|one|someone|people|somebody > @how
    how i|you|we|one can|could|should|would|might|must|do > @how
    how can|could|should|would|might > @how
    how to > @how
    how about > @how
    how would you go about > @how
    how do i go about > @how
    how come > @why
    how many|much > @many
    how long|often|fast|big|large|far|deep|old|slow|small > @many =2
    how do|does|did|is|are|was|were|has|have > @mechanism
    how > @mechanism
    is there a|any|an|some good|easy|simple|better|quick|built-in|nice|way|method|approach|means|possibility way|method|approach to|of|for|that > @how
    is there a|any|an|some way|method|approach|means|possibility to|of|for > @how
    is there a|any|an|some way|method|approach|means i|we can > @how
    are there any|some ways to|of > @how
    what is|are|would|s the|a|some|your best|right|proper|correct|easiest|simplest|recommended|preferred|usual|standard|common|good|quickest|typical|suggested|clean|cleanest|canonical way|ways|approach|method|solution|practice to|of|for > @how
    what is|are|would be the|a|some best|right|proper|correct|easiest|simplest|recommended|preferred|usual|standard|common|good way|ways to|of|for > @how
    what is|are the|a way|ways|approach|method|solution|trick|command|code|procedure|steps|line to|of|for > @how
    what|which command|commands|code do|can|should i use to > @how
    what|which command|commands|code will|would|to|can > @how
    what|which command|commands does > @how
    what are the steps to > @how
    best|right|proper|correct|easiest|simplest|recommended|preferred|usual|standard|common|good|quickest|a|the|any|some way|ways|approach|method to|of > @how
    way|ways to|of > @how
    can|could|would|will you show|tell|teach|give me|us > @please
    can|could|would|will you please > @please
    can|could|would|will you > @please
    can|could|may|might i|we|one > @possible
    show|tell|teach|give me|us > @please
    please help > @please
    help me|us to|with > @please
    help me|us > @please
    i|we am|are|m trying|looking|attempting|going|planning to|for > @please
    i|we am|are wondering|interested > @please
    i|we wonder > @please
    i|we am|are trying|struggling > @please
    i|we am|are having > @please
    having trouble|problems|issues with|in > with
    i|we want|need|wish|have|try|would|d like|love|prefer to > @please
    i|we would|d like|love to > @please
    i|we would|d like|love > @please
    i|we want|need|have|try to > @please
    i|we want|need > @please
    i|we just want|need to > @please
    i|we do not know|understand|get > @please
    do you|u know > @please
    any idea|ideas|suggestion|suggestions|tips > @please
    let me know > @please
    i have|had got > @please
    i have|had > @please
    is it possible|feasible|doable to|that > @possible
    possible to > @possible
    am i able to > @possible
    should|shall i|we|you|one > @should
    do|must i|we|you need|have to > @should
    must i|we > @should
    is it necessary|required|needed to > @should
    the|a mean of > average
    why > @why
    which to choose|pick|use|prefer|take|select > @which
    which is|are better|best|preferable|preferred|recommended > @which
    better than > instead
    preferable to > instead
    preferred over|to > instead
    write|create a|an|the|some sql query|queries|statement to|that|which > @how
    write|create a|an|the|some query|queries|code to|that|which > @how
    write some code|sql to|that|which > @how
    function|script|query|program|method|command|class|macro|regex|regexp to|that|which > =1
    why do|did|am|would i|we get|getting|see|seeing|hit|hitting|receive|receiving > @why
    what > @whatever
    meaning > @whatdoes
    used to|for|as|in|with|by > =2
    and when should|do i|we|you use > @when @and
    and when should|do i|we|you > @when @and
    and when to use > @when @and
    and when > @when @and
    right|better|best|good choice|option > @please
    single and|or|vs|versus double quote|quotes > singlequote @and doublequote
    double and|or|vs|versus single quote|quotes > doublequote @and singlequote
    is there a|any|some command|shortcut|trick to|for > @how
    what is|are the|a|an fastest|slowest|shortest|safest|cheapest|modern|idiomatic|pythonic|efficient|secure|safe|reliable|portable|other|alternative way|ways|approach|method to|of|for > =4 @how
    what is the most efficient|pythonic|idiomatic|secure|reliable|common|elegant|performant|readable way|ways|approach|method to|of|for > =4 =5 @how
    what do|does|did > @whatdoes
    what is|are|was|s the reason|reasons|cause|explanation for|that|why|of|behind > @why
    what is|are causing|making > @why
    what causes|caused|makes|made > @why
    reason|reasons for|why|that > @why
    cause|causes of > @why
    what is|are|was|were|s the|a|an meaning|definition|purpose|point|use|role|idea of|behind > @what
    what is|are|was|were > @what
    what exactly is|are|does > @what
    meaning|definition|purpose of > @what
    explain|describe|define|clarify > @explain
    tell me about > @explain
    difference|differences|distinction between > @difference
    difference|differences|distinction in > @difference in
    difference|differences|distinction > @difference
    differ|differs from|to|than > @difference @and
    differ|differs > @difference
    is|are different|distinct from|than|to > @difference @and
    are|is different > @difference
    different from|than|to > @difference @and
    vs|versus > @difference @and
    vs. > @difference @and
    in|under what|which case|cases|situation|situations|circumstances|scenarios > @when
    at what point > @when
    let me|us > @please
    what is an easy|easier way|method to|of|for > @how
    simple|quick|easy|easier|simpler|easiest|simplest|better way|approach|method|example|examples|explanation|overview|question|summary|terms|words|intro > =2
    regular expression|expressions > regex
    reg ex > regex
    application programming interface > api
    command line interface > cli
    graphical user interface > gui
    user interface > ui
    object oriented programming > oop
    object oriented > oop
    operating system > os
    garbage collection|collector > gc
    global interpreter lock > gil
    pull request > pr
    merge request > mr
    json web token > jwt
    virtual environment > venv
    virtual machine > vm
    standard input > stdin
    standard output > stdout
    standard error > stderr
    continuous integration > ci
    foreign key|keys > foreignkey
    primary key|keys > primarykey
    node js > node
    react js > react
    vue js > vue
    next js > next.js
    express js > express
    c sharp > c#
    c plus plus > c++
    dot net > .net
    scikit learn > sklearn
    visual studio code > vscode
    vs code > vscode
    spring boot > springboot
    go lang > golang
    amazon web services > aws
    google cloud platform|- > gcp
    google cloud > gcp
    ruby on rails > rails
    object relational mapper|mapping > orm
    transport layer security > tls
    domain name system > dns
    content delivery network > cdn
    cross origin resource sharing > cors
    single page application|app > spa
    document object model > dom
    common table expression > cte
    comma separated value|values > csv
    file name|names > filename
    time stamp|stamps > timestamp
    time zone|zones > timezone
    time out|outs > timeout
    data base|bases > database
    data frame|frames > dataframe
    data type|types > datatype
    data set|sets > dataset
    key value > keyvalue
    name space|spaces > namespace
    work space > workspace
    work flow|flows > workflow
    check box|boxes > checkbox
    drop down|downs > dropdown
    text box|boxes > textbox
    text area > textarea
    line break|breaks > newline
    linebreak|linebreaks > newline
    new line|lines > newline
    white space|spaces > whitespace
    sub string|strings > substring
    sub query|queries > subquery
    sub class|classes > subclass
    super class > superclass
    sub module|modules > submodule
    sub directory|directories > subdirectory
    sub domain|domains > subdomain
    web socket|sockets > websocket
    web hook|hooks > webhook
    web site|sites > website
    web page|pages > webpage
    back end > backend
    front end > frontend
    full stack > fullstack
    open source > opensource
    multi thread|threading|threaded > multithreading
    multithread|multithreaded > multithreading
    multi processing|process > multiprocessing
    run time > runtime
    compile time > compiletime
    real time > realtime
    up to date > current
    read only > readonly
    upper case > uppercase
    lower case > lowercase
    camel case > camelcase
    snake case > snakecase
    kebab case > kebabcase
    title case > titlecase
    pascal case > pascalcase
    case in sensitive > caseinsensitive
    case insensitive|insensitively > caseinsensitive
    case sensitive|sensitively > casesensitive
    e mail|mails > email
    end point|points > endpoint
    break point|points > breakpoint
    entry point > entrypoint
    load balancer|balancers > loadbalancer
    load balancing > loadbalance
    try catch > trycatch
    hash map|maps > hashmap
    hash table|tables > hashtable
    hash set|sets > hashset
    linked list|lists > linkedlist
    for loop|loops > forloop
    while loop|loops > whileloop
    if statement|statements > ifstatement
    set up > setup
    clean up > cleanup
    back up|ups > backup
    backing up > backup
    look up|ups > lookup
    speed up > speedup
    start up > startup
    shut down > shutdown
    shutting down > shutdown
    log|logging in to|with|as|via|from > login =3
    log|logging into > login to
    log|logging out > logout
    sign|signing in to|with|as|via|from > login =3
    sign|signing into > login to
    sign|signing out > logout
    roll|rolling|rolled back > rollback
    check out > checkout
    turn|turning on > enable
    turn|turning|switch|switching off > disable
    get|getting rid of > delete
    make sure that > ensure
    make sure > ensure
    loop|loops|looping|iterate|iterates|iterating|iteration over|through|across > iterate
    run|runs|running in parallel > runparallel
    in parallel > parallel
    at the same time > simultaneously
    in order to > to
    so as to > to
    so that > so-that
    such that > so-that
    in such a way that > so-that
    so the|a|an|i|it|we|my|each|every|all|they|he|you|only > so-that =2
    what now > @please
    even though|if > although
    while|but|and keep|keeping|preserve|preserving|retain|retaining|maintain|maintaining > but keep
    create|make|build|add|start|open a|an|the|my new > =1
    create|make|build|add|start|open new > =1
    segmentation fault|faults > segfault
    seg fault|faults > segfault
    two|2 times > twice
    most recent > last
    single quote|quotes > singlequote
    double quote|quotes > doublequote
    single page|pages > singlepage
    single thread|threaded|threads > singlethread
    single sign on > sso
    single precision > singleprecision
    single responsibility > singleresponsibility
    single one > one
    first|second|third|last|other|same|wrong|new|old|next|this|that|former|latter one|ones > =1
    this|that|these|those one|ones > @please
    in order of > in order
    as well as > and
    instead of > instead
    rather than > instead
    in place of > instead
    other than > except
    except for > except
    apart from > except
    but not > but not
    no longer > not anymore
    any more > anymore
    with no > without
    with out > without
    in a|the|my|our project|codebase|program|script|code|app|application|file of mine > =0
    in my|our project|codebase|program|script|code|app|application > =0
    for example > =0
    for instance > =0
    code example|examples|snippet|sample|samples > code
    an|some example|examples of > =0
    with an|some example|examples > =0
    with example|examples|code > =0
    step by step > stepbystep
    check|test|determine|verify|tell|see|detect|know|find whether|if|that > check
    find out whether|if|that > check
    figure out > figureout
    by means of > with
    with the help of > with
    through the use of > with
    due to > because
    because of > because
    for each|every > each
    each and every > each
    each one > each
    which one > @which
    one by one > onebyone
    one at a time > onebyone
    line by line > linebyline
    one another|other > eachother
    each other > eachother
    at once > atonce
    all at once > atonce
    a lot of > multiple
    lots of > multiple
    a couple of > multiple
    a number of > multiple
    out of > from
    inside of > in
    on top of > ontop
    next to > nextto
    up to > upto
    as soon as > when
    in case of|that > when
    in case > when
    each time > whenever
    every time > whenever
    at least > atleast
    at most > atmost
    more than > morethan
    less|fewer than > lessthan
    greater|larger|higher|bigger than > morethan
    smaller|lower than > lessthan
    as possible > aspossible
    good|best practice|practices > bestpractice
    is|are not working > does not work";

/// Cues that only count at the beginning of a sentence; elsewhere these words mean something else.
pub(super) const OPENERS: &str = "\
    when should|do|does|did|is|are|was|would|will|to > @when
    when must > @when must
    when can|could|may > @when possible
    where should|do|does|did|is|are|was|would|can|could|will|must|to > @where
    write a|an|the|some > @how
    which > @which
    who > @who
    is|are|does|do|has|have|would|am > @yesno
    was|were|did|had > @yesno in-the-past
    will > @yesno in-the-future
    can|could|may|might > @possible
    should|must|shall > @should";
