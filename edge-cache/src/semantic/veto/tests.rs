use proptest::prelude::*;

use super::*;

/// FNV-1a: any hash will do.
fn hash(text: &str) -> u32 {
    text.bytes().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}

pub(super) fn wording(text: &str) -> Wording {
    Wording::of(text, &hash)
}

fn same(one: &str, other: &str) {
    let verdict = veto(&wording(one), &wording(other));
    let why = differing_words(one, &hash, &wording(other));
    assert_eq!(verdict, Ok(()), "{one} / {other} {why:?}");
}

fn differ(one: &str, other: &str, expected: Veto) {
    assert_eq!(veto(&wording(one), &wording(other)), Err(expected), "{one} / {other}");
}

#[test]
fn courtesy_case_and_contractions_mean_nothing() {
    same("How do I sort a list in Python?", "hi, how can i sort a list in python please");
    same("How do I sort a list?", "What's the best way to sort a list?");
    same("How do I sort a list?", "Can you show me how to sort a list?");
    same("How do I sort a list?", "I want to sort a list");
    same("Why doesn't X11 start?", "why does X11 not start");
    same("What’s a closure?", "what is a closure");
    same("Could you explain why tests hang?", "Why do tests hang?");
    same("Explain closures in JavaScript", "What are closures in JavaScript?");
}

#[test]
fn inflection_spelling_and_abbreviations_mean_nothing() {
    same("How do I delete files in a directory?", "how to remove a file in a folder");
    same("How do I serialise an object?", "How do I serialize objects?");
    same("How to set an env var in k8s", "How do I set environment variables in Kubernetes?");
    same("regex for digits in js", "regular expression for digits in JavaScript");
    same("what is a key value store", "What is a key-value store?");
    same("How do I read a 10 GB file?", "how to read a 10GB file");
    same("What is UTF-8?", "what is utf8");
    same("How do I use two databases in Django?", "how to use 2 dbs in django");
    same("What does `foo()` return?", "what does foo return");
    same("How do I log in to Docker?", "how to login to docker");
}

#[test]
fn a_setting_and_operands_may_move() {
    same("In Python, how do I sort a list?", "How do I sort a list in Python?");
    same("How do I sort a Python list?", "python: sort a list");
    same("What is the difference between a mutex and a semaphore?", "semaphore vs mutex");
    same(
        "How does `map` differ from `flatMap`?",
        "What's the difference between `flatMap` and `map`?",
    );
    same("Which should I use, Redis or Memcached?", "should i use memcached or redis?");
    same("In a Dockerfile, how do I copy files?", "How do I copy files in a Dockerfile?");
}

#[test]
fn numbers_must_agree() {
    differ("How do I open port 8080?", "How do I open port 8081?", Veto::Numbers);
    differ("What is new in Python 3.8?", "What is new in Python 3.9?", Veto::Numbers);
    differ("How do I merge two lists?", "How do I merge three lists?", Veto::Numbers);
    differ("How do I get the first row?", "How do I get the 2nd row?", Veto::Numbers);
    differ("Explain HTTP 401", "Explain HTTP 403", Veto::Numbers);
    differ("How do I limit a file to 10MB?", "How do I limit a file to 10GB?", Veto::Identifiers);
    differ("What changed in v1.2?", "What changed in v1.20?", Veto::Numbers);
}

#[test]
fn negation_must_agree() {
    differ("Why does the cache work?", "Why does the cache not work?", Veto::Negation);
    differ("Why can I import it?", "Why can't I import it?", Veto::Negation);
    differ("How do I run tests with Docker?", "How do I run tests without Docker?", Veto::Negation);
    differ("How do I use a list?", "How do I avoid a list?", Veto::Negation);
    differ("Delete all files except logs", "Delete all files and logs", Veto::Negation);
    differ("How do I enable caching?", "How do I disable caching?", Veto::Negation);
    differ("How do I turn on caching?", "How do I turn off caching?", Veto::Negation);
    differ("Use a set instead of a list", "Use a set and a list", Veto::Negation);
}

#[test]
fn opposites_must_agree() {
    for (one, other) in [
        ("ascending", "descending"),
        ("first", "last"),
        ("local", "global"),
        ("public", "private"),
        ("inner", "outer"),
        ("min", "max"),
        ("synchronous", "asynchronous"),
        ("row", "column"),
        ("left", "right"),
        ("uppercase", "lowercase"),
        ("before", "after"),
        ("client", "server"),
    ] {
        let ask = |word: &str| format!("How do I check the thing {word} the value?");
        differ(&ask(one), &ask(other), Veto::Opposites);
    }
    differ("How do I encode base64?", "How do I decode base64?", Veto::Opposites);
    differ("How do I upload files?", "How do I download files?", Veto::Opposites);
}

#[test]
fn names_and_identifiers_must_agree() {
    differ("How do I sort a list in Python?", "How do I sort a list in Ruby?", Veto::Names);
    differ("What does useState do?", "What does useEffect do?", Veto::Words);
    differ("What does --force do?", "What does --hard do?", Veto::Identifiers);
    differ("What does grep -v do?", "What does grep -V do?", Veto::Identifiers);
    differ("What is /etc/hosts?", "What is /etc/passwd?", Veto::Identifiers);
    differ("What does os.path.join do?", "What does os.path.split do?", Veto::Identifiers);
    differ(
        "How do I iterate over a Map in Java?",
        "How do I iterate over a map in Java?",
        Veto::Names,
    );
    same("How do I iterate over a Map in Java?", "how do i iterate over a map in java");
    differ("What does `==` do?", "What does `===` do?", Veto::Identifiers);
    differ("What does the ? operator do?", "What does the & operator do?", Veto::Identifiers);
    differ("IN vs EXISTS in SQL", "JOIN vs EXISTS in SQL", Veto::Opposites);
}

#[test]
fn every_other_word_must_agree() {
    differ("How do I sort a list?", "How do I sort an array?", Veto::Opposites);
    differ("How do I find a file?", "How do I copy a file?", Veto::Opposites);
    differ("What is a monad?", "What is a functor?", Veto::Words);
    differ("How do I undo a commit?", "How do I revert a commit?", Veto::Opposites);
    differ("How do I list used ports?", "How do I list unused ports?", Veto::Words);
    differ("How do I rename a table?", "How do I rename an unlogged table?", Veto::Words);
    differ("What is the fastest way to sort?", "How do I sort?", Veto::Words);
}

#[test]
fn the_answer_asked_for_must_agree() {
    differ("Why does the build fail?", "How does the build fail?", Veto::Purpose);
    differ("What is a lock?", "When should I use a lock?", Veto::Purpose);
    differ("How do I use a lock?", "When should I use a lock?", Veto::Purpose);
    differ("How do I drop a table?", "Should I drop a table?", Veto::Purpose);
    differ("Where are images stored?", "How are images stored?", Veto::Purpose);
    differ("How many threads can I start?", "How can I start threads?", Veto::Purpose);
    differ("What is the difference between TCP and UDP?", "What are TCP and UDP?", Veto::Purpose);
}

#[test]
fn order_must_agree_where_it_means_something() {
    let check = |one: &str, other: &str| differ(one, other, Veto::Order);
    check("How do I convert a string to bytes?", "How do I convert bytes to a string?");
    check("How do I make a list of dicts?", "How do I make a dict of lists?");
    check("How do I migrate from MySQL to Postgres?", "How do I migrate from Postgres to MySQL?");
    check("How do I call Rust from Python?", "How do I call Python from Rust?");
    check("How do I run Docker in Jenkins?", "How do I run Jenkins in Docker?");
    check("Should A wait before B?", "Should B wait before A?");
    check("Is a trait extended by a class?", "Is a class extended by a trait?");
    check(
        "When should I use a tuple instead of a list?",
        "When should I use a list instead of a tuple?",
    );
    check("Why does X work but not Y?", "Why does Y work but not X?");
    check("Find users without orders", "Find orders without users");
    check("How do I test Docker with a script?", "How do I test a script with Docker?");
    check("How do I stop a running job?", "How do I run a stopped job?");
    check(
        "What is the difference between a key in a map and a value in a list?",
        "What is the difference between a value in a map and a key in a list?",
    );
}

#[test]
fn another_question_is_never_taken_for_it() {
    for (one, other) in [
        (
            "How do I count the number of rows in a table?",
            "How do I count the row number in a table?",
        ),
        (
            "How do I compare two lists in Python?",
            "What is the difference between two lists in Python?",
        ),
        ("How do I import a module from a file?", "How do I import a file from a module?"),
        ("How do I fix a memory leak in C++?", "How do I create a memory leak in C++?"),
        ("How do I use Redis with Django?", "How do I use Django with Redis?"),
        (
            "How do I test a function that throws an error?",
            "How do I test a function without throwing an error?",
        ),
        ("How do I catch an exception in Java?", "How do I throw an exception in Java?"),
        ("How do I search in a string?", "How do I search for a string?"),
        ("Should I use tabs or spaces?", "Should I use spaces?"),
        ("What does git pull do?", "What does git push do?"),
        ("How can I make a GET request with curl?", "How can I make a POST request with curl?"),
        ("What happens when a promise is rejected?", "What happens when a promise is resolved?"),
        ("How do I wait before the request is sent?", "How do I wait until the request is sent?"),
        ("How do I convert JSON to XML?", "How do I convert XML to JSON?"),
        ("How do I convert JSON into a Python dict?", "How do I convert a Python dict into JSON?"),
        ("How do I turn a list into a tuple?", "How do I turn a tuple into a list?"),
        ("How do I log in to a container?", "How do I log out of a container?"),
        (
            "How to copy a file from host to container in Docker?",
            "How to copy a file from container to host in Docker?",
        ),
        ("How do I run a query on each row?", "How do I run a query on one row?"),
        ("How do I sort by name then by age?", "How do I sort by age then by name?"),
        (
            "Is it safe to share a HashMap between threads?",
            "How do I share a HashMap between threads?",
        ),
        ("Does Python support overloading?", "How does Python support overloading?"),
        ("Can I use async without await?", "Can I use await without async?"),
        ("When does React re-render?", "When does React not re-render?"),
        ("How do I merge branch A into branch B?", "How do I merge branch B into branch A?"),
        ("How do I rebase onto main?", "How do I rebase main?"),
        ("What is the time complexity of quicksort?", "What is the space complexity of quicksort?"),
        ("What is a left join?", "What is a right join?"),
        ("How do I set a variable in bash?", "How do I unset a variable in bash?"),
        ("How do I set up logging in Python?", "How do I set up login in Python?"),
        ("How do I use a mutex in Go?", "How do I use a channel in Go?"),
        ("How do I stop nginx?", "How do I start nginx?"),
        ("How do I remove the first item of a list?", "How do I remove the last item of a list?"),
        (
            "How do I remove the first item of a list?",
            "How do I remove the first two items of a list?",
        ),
        ("What port does Redis use?", "What port does Postgres use?"),
        ("Why is my query slow with an index?", "Why is my query slow without an index?"),
        ("How do I mock a function in Jest?", "How do I mock a module in Jest?"),
        ("How to check if a string contains a number?", "How to check if a string is a number?"),
        ("How to check if a key exists in a dict?", "How to check if a value exists in a dict?"),
        ("how do i check that a list is empty", "how do i check that a list is not empty"),
        ("How do I get the length of a list?", "How do I get the list of lengths?"),
        ("Which is faster, a list or a set?", "Which is slower, a list or a set?"),
        ("Is Rust faster than Go?", "Is Go faster than Rust?"),
        ("Why is Rust faster than Go?", "Why is Go faster than Rust?"),
        (
            "How can a child component call its parent in React?",
            "How can a parent component call its child in React?",
        ),
        ("How do I pass props from child to parent?", "How do I pass props from parent to child?"),
        (
            "How do I include a file in a Docker image?",
            "How do I exclude a file from a Docker image?",
        ),
        (
            "How do I run tests in parallel with pytest?",
            "How do I run tests in sequence with pytest?",
        ),
        (
            "How do I add a column after another column?",
            "How do I add a column before another column?",
        ),
        ("How do I allow only GET requests?", "How do I allow all but GET requests?"),
        ("How do I kill a process on port 3000?", "How do I start a process on port 3000?"),
        ("What should a constructor do?", "What should a constructor not do?"),
        ("What's new in Java 17?", "What's new in Java 21?"),
        ("How do I upgrade from Java 8 to 17?", "How do I upgrade from Java 17 to 8?"),
        ("How do I use Python 2 and 3 side by side?", "How do I use Python 3?"),
        ("How can I use a string as a key?", "How can I use a key as a string?"),
        ("How do I call a C function in Python?", "How do I call a Python function in C?"),
        ("How do I build a React app with Docker?", "How do I build a Docker app with React?"),
        ("How do I treat a warning as an error?", "How do I treat an error as a warning?"),
        ("Why is A called by B?", "Why is B called by A?"),
        ("How do I map a list over a function?", "How do I map a function over a list?"),
        (
            "How do I split a string by commas into a list?",
            "How do I join a list by commas into a string?",
        ),
        (
            "What does a function returning a pointer look like?",
            "What does a pointer to a function look like?",
        ),
        ("How do I prove P implies Q?", "How do I prove Q implies P?"),
        (
            "When should I use an interface and not a class?",
            "When should I use a class and not an interface?",
        ),
        ("How do I use variables in a template?", "How do I use a template in variables?"),
        ("How do I make a variable global?", "How do I make a global variable local?"),
        ("How do I prevent a form from submitting?", "How do I submit a form?"),
        ("How do I handle errors in Go?", "How do I ignore errors in Go?"),
        ("How does X inherit from Y?", "How does Y inherit from X?"),
        ("Which Python version added match?", "Which Python version removed match?"),
        ("How do I get a list of used ports?", "How do I get a list of ports?"),
        (
            "What is the difference between a class and a struct in C++?",
            "What is the difference between a class and a struct in C#?",
        ),
        (
            "What is the difference between let and const?",
            "What is the difference between let and var?",
        ),
        ("How to drop a table if it exists?", "How to create a table if it exists?"),
        ("How to create a table if it exists?", "How to create a table if it does not exist?"),
        ("What does x++ do?", "What does ++x do?"),
        ("What does i-- do?", "What does --i do?"),
        ("What is a[0] in C?", "What is a[1] in C?"),
        ("What is O(n)?", "What is O(n^2)?"),
        ("What does chmod 755 do?", "What does chmod 644 do?"),
        ("How do I add 1 day to a date?", "How do I subtract 1 day from a date?"),
        ("How do I run a script at startup?", "How do I run a script at shutdown?"),
        ("How do I go from REST to GraphQL?", "How do I go from GraphQL to REST?"),
        (
            "Explain how garbage collection works in Java",
            "Explain how garbage collection works in Go",
        ),
        ("Can a class extend an interface?", "Can an interface extend a class?"),
        ("How can I tell whether a file is open?", "How can I open a file?"),
        (
            "How do I find the file that a commit changed?",
            "How do I find the commit that changed a file?",
        ),
        ("Which files does git ignore?", "How do I make git ignore files?"),
        ("How do I revert to a commit?", "How do I revert a commit?"),
        ("How do I switch on a string in Java?", "How do I enable a string in Java?"),
        ("How do I reset to HEAD?", "How do I reset HEAD?"),
        ("How do I use pip for Python 3?", "How do I use pip3 for Python 2?"),
        ("How do I loop over a list backwards?", "How do I loop over a list?"),
        ("Why can't Rust find my crate?", "Why can Rust find my crate?"),
        ("Should a function ever return null?", "Can a function ever return null?"),
        ("What must a Dockerfile have?", "What can a Dockerfile have?"),
        ("When can I drop a table?", "When must I drop a table?"),
        ("What could go wrong with eval?", "What should go wrong with eval?"),
        ("How do I read data from Kafka?", "How do I read data in Kafka?"),
        ("What is the average of a list?", "What is a list?"),
        ("What does the mean of a list show?", "What does a list show?"),
        ("How do I use git with VS Code?", "How do I use VS Code with git?"),
        (
            "How do I write tests in Python for Rust code?",
            "How do I write tests in Rust for Python code?",
        ),
        ("Does Rust have classes?", "Why does Rust not have classes?"),
        ("How do I create a user in Linux?", "How do I create a group in Linux?"),
        ("How many bits are in a byte?", "How many bytes are in a bit?"),
        ("How long does a JWT last?", "How large is a JWT?"),
        ("How do I get the date in UTC?", "How do I get the time in UTC?"),
        ("Where is the npm cache?", "What is the npm cache?"),
        ("Who can read a private repo?", "Who can write a private repo?"),
        ("How do I check out a branch?", "How do I check a branch?"),
        ("How do I back up a database?", "How do I restore a database?"),
        ("What is A in B?", "What is B in A?"),
        ("How do I move up a directory?", "How do I move a directory up?"),
        (
            "How do I get a value from a nested dict in a list?",
            "How do I get a value from a nested list in a dict?",
        ),
        ("How do I use an API key in a header?", "How do I use a header in an API key?"),
        ("Is a list in a tuple mutable?", "Is a tuple in a list mutable?"),
    ] {
        assert!(veto(&wording(one), &wording(other)).is_err(), "{one} / {other}");
    }
}

#[test]
fn the_same_in_other_words_is_taken_for_it() {
    for (one, other) in [
        ("How do I check whether a file exists in Go?", "how to check if a file exists in golang"),
        ("How do I switch on a string in Java?", "how to switch on a string in java"),
        (
            "How can I pretty print JSON in Python?",
            "What's the easiest way to pretty-print JSON in Python?",
        ),
        ("How do I center a div?", "How to centre a div"),
        ("What does HTTP status 404 mean?", "what is the meaning of HTTP status 404"),
        ("How do I exit vim?", "how to quit vim"),
        ("How do I list all Docker containers?", "docker: list all containers"),
        ("how do i get the current date in javascript", "How can I get the current date in JS?"),
        ("What is dependency injection?", "Can you explain dependency injection?"),
        ("Why is my Docker build so slow?", "why is my docker build slow?"),
        (
            "How do I kill a process that's using port 3000?",
            "How to kill the process using port 3000",
        ),
        ("What's the difference between == and === in JavaScript?", "JavaScript == vs ==="),
        ("How do I reverse a string in Python?", "python reverse string"),
        ("Write a regex that matches email addresses", "regex to match an e-mail address"),
        ("How do I iterate through a dictionary in C#?", "how to loop over a dict in c#"),
        ("How can I avoid a deadlock in Postgres?", "How do I prevent deadlocks in PostgreSQL?"),
        ("Is it possible to undo a git rebase?", "How can I undo a git rebase?"),
        ("What are Python decorators?", "What is a decorator in Python?"),
        ("How to make an HTTP request in Node?", "How do I make HTTP requests with Node.js?"),
        (
            "how does garbage collection work in java",
            "Explain how the garbage collector works in Java",
        ),
        ("What is the time complexity of binary search?", "time complexity of binary search"),
        (
            "How do I pass environment variables to a Docker container?",
            "passing env vars to docker container",
        ),
        ("Why do I get a segmentation fault in C?", "What causes a segfault in C?"),
        ("How to merge two dictionaries in Python", "How do you merge 2 dicts in python?"),
        ("How do I convert a string to an int in Java?", "how to convert String to int in java"),
        ("How do I create a new branch in git?", "how to create a git branch"),
        (
            "What are the differences between threads and processes?",
            "difference between process and thread",
        ),
        ("What is a race condition?", "what are race conditions?"),
    ] {
        same(one, other);
    }
}

#[test]
fn the_asker_is_told_which_words() {
    let text = "How do I sort a list of dicts by age, descending?";
    let entry = wording("How do I sort a list of tuples by age?");
    assert_eq!(differing_words(text, &hash, &entry), ["dicts", "descending"]);
    assert_eq!(entry_only(&wording(text), &entry), 1);
    assert!(differing_words(text, &hash, &wording(text)).is_empty());
}

#[test]
fn a_wording_is_small_whatever_the_text() {
    let long: String = (0..10_000).map(|number| format!("word{number} ")).collect();
    let wording = wording(&long);
    assert!(wording.words.len() <= WORDS_MAX);
    differ(&long, &format!("{long} more"), Veto::Order);
    same(&long, &long);
}

/// Texts of words that the rules know, in any order.
fn words() -> impl Strategy<Value = String> {
    const WORDS: &str = "how do i what is the difference between and vs or why not doesn't can't list \
        dict Map map python in from to with, for Rust: 3.8 10GB two first `is` == --force foo() \
        when should which instead of without error fix use turn into python3 UTF-8 don't \"a b c d\" \
        ? . , ' ` :name name: \\b \\B \"0.1\" -1 '' \"\" save! foo .env @foo vs any let will need once \
        utf-8 node.js get rid of double quotes single if because";
    let words: Vec<_> = WORDS.split(' ').collect();
    prop::collection::vec(prop::sample::select(words), 0..24).prop_map(|words| words.join(" "))
}

proptest! {
    #[test]
    fn no_text_vetoes_itself(text in prop_oneof![words(), "\\PC*", "(?s).*"]) {
        let wording = wording(&text);
        prop_assert_eq!(veto(&wording, &wording), Ok(()));
        prop_assert!(differing_words(&text, &hash, &wording).is_empty());
        prop_assert_eq!(entry_only(&wording, &wording), 0);
    }

    #[test]
    fn a_veto_is_mutual(one in words(), other in words()) {
        let (one, other) = (wording(&one), wording(&other));
        prop_assert_eq!(veto(&one, &other), veto(&other, &one));
    }

    #[test]
    fn space_and_the_last_mark_mean_nothing(text in "[a-zA-Z ,]{0,60}") {
        let spaced = format!("  {} ?", text.replace(' ', "  "));
        prop_assert_eq!(wording(&text).words, wording(&spaced).words);
    }

    #[test]
    fn what_differs_is_in_the_text(one in words(), other in words()) {
        for word in differing_words(&one, &hash, &wording(&other)) {
            prop_assert!(one.contains(word));
        }
    }
}
