//! The tables of single words.

/// Left out wherever they stand.
pub(super) const FUNCTION: &str = "\
    a an the i you we he she it they me us him them my your our his its their mine yours this that \
    these those there here be is are was were been being am do does did doing done have has had \
    will would shall can could may might ought and then very \
    quite rather really just actually basically simply easily quickly properly correctly exactly please some any such own able just \
    so of use uses kindly ok okay hi hello hey thanks thank guys someone somebody something anybody anyone \
    which who whom whose about whether \
    want wanted wants need needed needs etc eg ie well going";

/// Prepositions that begin a clause, and its sort. Clauses of a sort may stand in any order.
pub(super) const PREPOSITIONS: &str = "\
    in: in on at inside within
    with: with using via
    for: for
    to: to into onto
    from: from
    by: by
    without: without
    when: when while if whenever once during
    because: because since
    but: but although though however whereas
    before: before
    until: until till
    after: after
    than: than
    instead: instead
    unless: unless
    except: except
    like: like
    through: through
    between: between among
    against: against
    over: over
    under: under underneath beneath
    above: above
    below: below
    across: across
    around: around
    per: per
    or: or
    as: as
    so: so-that";

/// Negations. They count as words; apart from them only for the verdict's name.
pub(super) const NEGATIONS: &str = "\
    not no never none neither nor nothing nobody nowhere without unless except instead non avoid \
    prevent stop forbid disallow deny ignore skip exclude omit suppress disable only";

/// Opposites, or siblings that are taken for each other. For the verdict's name, and so that no
/// line of synonyms brings two of them together (there is a test).
pub(super) const OPPOSITES: &str = "\
    ascending/descending asc/desc first/last read/write push/pull encode/decode encrypt/decrypt \
    encoder/decoder serialize/deserialize marshal/unmarshal compress/decompress zip/unzip \
    pack/unpack min/max minimum/maximum minimal/maximal minimize/maximize smallest/largest \
    shortest/longest lowest/highest fewest/most least/most less/more fewer/more smaller/larger \
    smaller/bigger small/large little/big short/long shorter/longer slow/fast slower/faster \
    worst/best worse/better bad/good local/global local/remote client/server frontend/backend \
    before/after previous/next upper/lower uppercase/lowercase sync/async synchronous/asynchronous \
    blocking/nonblocking public/private protected/private add/remove insert/remove insert/delete \
    append/prepend create/delete create/remove attach/detach mount/unmount install/uninstall \
    enable/disable include/exclude allow/deny allow/block permit/forbid accept/reject grant/revoke \
    subscribe/unsubscribe publish/subscribe lock/unlock start/stop start/end begin/end \
    begin/finish start/finish pause/resume open/close show/hide visible/hidden expand/collapse \
    row/column horizontal/vertical horizontally/vertically width/height left/right top/bottom \
    up/down upgrade/downgrade upload/download import/export input/output stdin/stdout \
    stdout/stderr inner/outer inside/outside internal/external static/dynamic mutable/immutable \
    constant/variable stateful/stateless success/failure succeed/fail pass/fail true/false yes/no \
    on/off in/out increase/decrease increment/decrement raise/lower grow/shrink parent/child \
    ancestor/descendant base/derived superclass/subclass abstract/concrete caller/callee \
    sender/receiver send/receive request/response source/destination source/target \
    producer/consumer master/slave primary/secondary primary/replica leader/follower host/guest \
    host/container load/save load/unload save/restore backup/restore commit/revert commit/rollback \
    merge/split join/split concatenate/split stage/unstage stash/pop push/pop enqueue/dequeue \
    reference/value shallow/deep soft/hard hard/symbolic light/dark strict/loose strong/weak \
    odd/even positive/negative signed/unsigned one/multiple singular/plural unique/duplicate \
    equal/different same/different above/below over/under over/below front/back forward/backward \
    forward/reverse early/late eager/lazy earliest/latest newest/oldest newer/older new/old \
    newer/existing online/offline production/development production/staging debug/release \
    compile/run runtime/compiletime build/run train/test train/predict absolute/relative \
    prefix/suffix leading/trailing start/trailing full/partial whole/part every/none all/one \
    any/all both/neither always/never with/without from/to and/or and/not ingress/egress \
    inbound/outbound incoming/outgoing buffered/unbuffered cached/uncached ordered/unordered \
    sorted/unsorted known/unknown safe/unsafe valid/invalid checked/unchecked nullable/nonnullable \
    optional/required optional/mandatory implicit/explicit automatic/manual automatically/manually \
    centralized/distributed parallel/sequential parallel/serial parallel/concurrent \
    concurrency/parallelism authentication/authorization authenticate/authorize login/logout \
    signin/signout process/thread stack/heap stack/queue array/list list/set list/tuple list/dict \
    class/function class/instance class/interface class/object function/method string/integer \
    integer/float string/number string/bytes text/binary file/directory file/folder header/body \
    get/post get/set getter/setter put/patch put/post select/update select/insert left/inner \
    rebase/merge fetch/pull clone/fork copy/move copy/link rename/copy filter/map map/reduce \
    break/continue throw/catch throw/return pass/return yield/return unit/integration \
    horizontal/diagonal scale/shrink char/string bit/byte day/month month/year day/year \
    hour/minute minute/second second/millisecond hour/day week/month vertical/lateral major/minor \
    maximize/restore clockwise/counterclockwise even/uneven wide/narrow thick/thin broad/specific \
    cheap/expensive buy/sell rise/fall win/lose credit/debit import/require throttle/debounce \
    unicast/multicast symmetric/asymmetric recursive/iterative recursively/iteratively greedy/lazy \
    inclusive/exclusive ancestors/descendants precise/approximate padding/margin block/inline \
    relational/nonrelational normalized/denormalized normalize/denormalize connected/disconnected \
    connect/disconnect couple/decouple bind/unbind register/unregister register/deregister \
    select/deselect check/uncheck focus/blur wrap/unwrap escape/unescape quote/unquote do/undo \
    undo/redo freeze/unfreeze archive/unarchive comment/uncomment indent/unindent indent/dedent \
    set/unset define/undefine link/unlink hit/miss entry/exit entrance/exit enter/exit enter/leave \
    foreground/background ascii/unicode hot/cold warm/cold persistent/temporary \
    permanent/temporary permanently/temporarily virtual/physical logical/physical \
    managed/unmanaged native/foreign human/machine tabs/spaces linear/nonlinear finite/infinite \
    bounded/unbounded ahead/behind near/far early/lately";

/// Words for one thing: the first of a line stands for all of it. Written as stems or words.
pub(super) const SYNONYMS: &str = "\
    dict dictionary
    javascript js ecmascript
    typescript ts
    python py python3
    kubernetes k8s kube
    database db
    environment env
    config configuration conf cfg
    repo repository
    directory dir folder
    function func fn
    parameter param
    argument arg
    regex regexp
    postgres postgresql pgsql
    variable var
    integer int
    boolean bool
    string str
    character char
    object obj
    attribute attr
    asynchronous async asynchronously
    synchronous sync synchronously
    administrator admin
    application app
    production prod
    development dev
    documentation docs
    image img picture pic
    information info
    library lib
    message msg
    package pkg
    reference ref
    temporary temp tmp
    value val
    numpy np
    pandas pd
    tensorflow tf
    delete remove deletion removal
    display show
    modify change alter
    iterate loop iteration
    concatenate concat
    large big huge
    multiple several many
    entire whole
    element item
    execute run exec execution
    call invoke
    throw raise
    exit quit
    permit allow
    forbid disallow
    prevent avoid
    choose pick
    every each all
    another other
    keep preserve retain
    1 one single
    error err
    column col
    minimum min minimal
    maximum max maximal
    ascending asc
    descending desc
    specification spec
    statistics stats
    identical same
    start begin
    compute calculate calc
    happen occur
    obtain retrieve get
    parenthesis paren
    authentication authn authenticate
    authorization authz
    random rand randomly
    sequential sequentially
    automatically automatic automated
    recursively recursive
    gray grey
    convert conversion
    validate validation
    create creation make
    install installation
    insert insertion
    serialize serialization
    deserialize deserialization
    encrypt encryption
    decrypt decryption
    initialize initialization init
    compile compilation
    migrate migration
    implement implementation
    declare declaration
    deploy deployment
    replace replacement
    truncate truncation
    allocate allocation
    generate generation
    optimize optimization
    synchronize synchronization
    normalize normalization
    format formatting
    subtract subtraction
    multiply multiplication
    duplicate duplication dup dupe
    navigate navigation
    paginate pagination
    tokenize tokenization
    visualize visualization
    render rendering
    destroy destruction
    manual manually
    lowercase lowercased
    uppercase uppercased
    parallel parallelly
    alphabetical alphabetically
    numeric numerical numerically
    vertical vertically
    horizontal horizontally
    dynamic dynamically
    static statically
    global globally
    local locally
    permanent permanently
    programmatic programmatically
    efficient efficiently
    safe safely
    secure securely
    periodic periodically
    correct correctness
    nonnull notnull
    average avg
    length len
    delimiter separator
    sequence seq
    expression expr
    statement stmt
    operator op
    command cmd
    memory mem
    processor cpu
    identifier id
    address addr
    pointer ptr
    source src
    destination dest dst
    previous prev
    original orig
    background bg
    button btn
    context ctx
    response resp
    request req
    buffer buf
    label lbl
    cron cronjob
    newline linefeed
    dialog dialogue
    judgment judgement
    neighbor neighbour
    honor honour
    labor labour
    flavor flavour
    artifact artefact
    program programme
    2 two
    3 three
    4 four
    5 five
    6 six
    7 seven
    8 eight
    9 nine
    10 ten
    11 eleven
    12 twelve
    20 twenty
    30 thirty
    50 fifty
    100 hundred
    1000 thousand
    0 zero
    first 1st
    second 2nd
    third 3rd
    fourth 4th
    fifth 5th";

/// Languages: what a question is set in, wherever the words for it stand.
pub(super) const LANGUAGES: &str = "\
    python javascript typescript java rust golang kotlin swift scala ruby php perl haskell erlang \
    elixir clojure lisp ocaml fsharp csharp c++ c# f# cpp vb dart lua julia matlab fortran \
    cobol pascal delphi groovy bash zsh powershell sql tsql plsql html css scss sass nim \
    zig solidity assembly wasm objective-c r c prolog racket elm purescript vba awk";

/// Products, frameworks and tools that people write in lower case.
pub(super) const PRODUCTS: &str = "\
    django flask fastapi pandas numpy scipy pytorch tensorflow keras sklearn pytest unittest celery \
    sqlalchemy pydantic asyncio poetry pip conda jupyter react vue angular svelte nextjs next.js \
    nuxt node nodejs node.js deno bun express nestjs jquery redux webpack vite babel eslint prettier \
    jest mocha vitest cypress playwright npm yarn pnpm spring springboot hibernate maven gradle junit \
    tomcat rails laravel symfony wordpress .net dotnet asp.net blazor unity unreal android ios macos \
    linux ubuntu debian centos fedora alpine windows wsl docker podman kubernetes kubectl helm istio \
    terraform ansible jenkins github gitlab bitbucket git svn mercurial circleci aws azure gcp heroku \
    vercel netlify cloudflare nginx apache caddy haproxy traefik envoy redis memcached postgres mysql \
    mariadb sqlite mongodb mongo cassandra dynamodb elasticsearch kafka rabbitmq nats grpc graphql \
    websocket prometheus grafana vim neovim emacs vscode intellij pycharm xcode tokio serde cargo \
    actix axum hadoop spark airflow snowflake bigquery oracle mssql firebase supabase stripe twilio \
    openssl curl wget ssh systemd tmux cmake bazel gcc clang llvm gdb tailwind bootstrap sass \
    excel selenium puppeteer opencv matplotlib seaborn plotly chrome firefox safari protobuf \
    prisma mongoose sequelize typeorm flutter ionic electron homebrew brew yum logstash kibana";

/// Ways of writing one name.
pub(super) const NAMES: &str = "\
    javascript js ecmascript
    typescript ts
    node nodejs node.js
    react reactjs react.js
    vue vuejs vue.js
    next.js nextjs
    nuxt nuxtjs nuxt.js
    express expressjs express.js
    c# csharp c-sharp
    c++ cpp
    f# fsharp
    .net dotnet
    mongodb mongo
    postgres postgresql
    kubernetes k8s
    sklearn scikit-learn scikitlearn
    pytorch torch
    vscode vs-code
    springboot spring-boot
    macos mac osx";

/// Contractions, less their apostrophes.
pub(super) const CONTRACTIONS: &str = "\
    whats: what is
    what's: what is
    what're: what are
    how's: how is
    hows: how is
    how'd: how do
    where's: where is
    who's: who is
    when's: when is
    why's: why is
    that's: that is
    there's: there is
    here's: here is
    it's: it is
    he's: he is
    she's: she is
    let's: let us
    i'm: i am
    im: i am
    i've: i have
    ive: i have
    i'd: i would
    i'll: i will
    we're: we are
    we've: we have
    we'd: we would
    you're: you are
    you've: you have
    they're: they are
    don't: do not
    dont: do not
    doesn't: does not
    doesnt: does not
    didn't: did not
    didnt: did not
    isn't: is not
    isnt: is not
    aren't: are not
    arent: are not
    wasn't: was not
    wasnt: was not
    weren't: were not
    can't: can not
    cant: can not
    cannot: can not
    couldn't: could not
    couldnt: could not
    won't: will not
    wont: will not
    wouldn't: would not
    wouldnt: would not
    shouldn't: should not
    shouldnt: should not
    haven't: have not
    havent: have not
    hasn't: has not
    hasnt: has not
    hadn't: had not
    mustn't: must not
    needn't: need not
    ain't: is not
    gonna: going to
    wanna: want to
    gimme: give me
    lemme: let me
    pls: please
    plz: please
    u: you
    w/o: without
    w/: with
    thx: thanks";

/// Capitalised they are types, in lower case something else; but for texts without capitals.
pub(super) const TYPES: &str = "\
    map set list string object date option result box array error function number boolean symbol \
    promise type record partial queue stack vector dictionary integer double float character long \
    short byte optional stream iterator thread process lock event counter path file enum dict tuple \
    any callable template some none self union literal pick omit required future task timer buffer \
    response request exception class module runnable supplier consumer";

/// With these, one takes a thing out of another, and `in` is as good as `from`.
pub(super) const EXTRACTIONS: &str = "delete strip exclude extract clear trim eliminate drop";
