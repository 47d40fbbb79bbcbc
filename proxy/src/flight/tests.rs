use nearhop_edge_cache::{Around, Asker, Namer, Question};
use nearhop_routing::Class;
use nearhop_wire::{CompletionRequest, Endpoint, Finish, ModelReport, Usage};

use super::*;

fn request(prompt: &str) -> CompletionRequest {
    let body = format!(r#"{{"model": "m", "prompt": "{prompt}"}}"#);
    CompletionRequest::parse(Endpoint::Completions, body.as_bytes()).unwrap()
}

fn question(request: &CompletionRequest) -> Question {
    let model = ModelReport {
        name: "m".into(),
        revision: "1".into(),
        template: "t".into(),
        temperature: 0.0,
        max_tokens: 8,
        context_length: 64,
        aliases: Vec::new(),
        suffix_first: false,
    };
    Question::of(request, Asker { tenant: "t", key: "k", user: None }, &model, &Namer::default())
}

fn asked(prompt: &str) -> Asked {
    let request = request(prompt);
    Asked::of(&question(&request), Around::of(&request)).unwrap().1
}

/// Ten seconds, of which five are worth waiting for.
fn terms(kind: Kind) -> Terms {
    let now = nearhop_admin::clock::now();
    let second = Duration::from_secs(1);
    Terms { kind, deadline: now + 10 * second, patience: now + 5 * second }
}

/// A flight that was asked for with that prompt, and its leader.
fn flight(prompt: &str) -> (Arc<Flight>, Reader) {
    let flight = Flight::new(Some(asked(prompt)), terms(Kind::Inline));
    let leader = flight.lead();
    (flight, leader)
}

fn join(flight: &Arc<Flight>, prompt: &str) -> Option<Reader> {
    join_as(flight, prompt, terms(Kind::Inline), [true; 4])
}

fn join_as(flight: &Arc<Flight>, prompt: &str, terms: Terms, allowed: [bool; 4]) -> Option<Reader> {
    flight.join(&Asking { asked: &asked(prompt), terms, allowed })
}

fn head() -> AnswerHead {
    AnswerHead {
        id: "1".into(),
        created: 1,
        model: "m".into(),
        fingerprint: "m@1".into(),
        endpoint: Endpoint::Completions,
    }
}

fn say(flight: &Flight, text: &str) {
    if !flight.has_begun() {
        flight.begin(head(), Origin::Upstream(Class::Pod, "p".into()));
    }
    flight.push(Event::Delta(Delta { text: text.into(), ..Delta::default() }));
    flight.tell();
}

fn done(flight: &Flight, text: &str) {
    let last = Delta { finish: Some(Finish::Stop), ..Delta::default() };
    flight.push(Event::Delta(last));
    let choices = vec![nearhop_wire::Choice {
        text: text.into(),
        finish: Finish::Stop,
        logprobs: Vec::new(),
    }];
    flight.end(End::Done(Arc::new(Answer { head: head(), choices, usage: Usage::default() })));
}

/// What a streaming reader is given until something else than pieces comes.
async fn read(reader: &mut Reader, sent: bool) -> (String, Step) {
    let mut text = String::new();
    let mut take = |_: (&AnswerHead, u32), event: &Event| {
        if let Event::Delta(delta) = event {
            text.push_str(&delta.text);
        }
    };
    let step = reader.next(sent, &mut take).await;
    (text, step)
}

#[tokio::test]
async fn readers_get_the_same_whenever_they_come() {
    let (flight, mut leader) = flight("a = ");
    say(&flight, "one ");
    let mut late = join(&flight, "a = ").unwrap();
    assert_eq!(read(&mut leader, false).await.0, "one ");
    say(&flight, "two");
    done(&flight, "one two");
    let (text, step) = read(&mut leader, true).await;
    assert_eq!(text, "two");
    assert!(matches!(step, Step::Done(_)));
    let (text, step) = read(&mut late, false).await;
    assert_eq!(text, "one two");
    assert!(matches!(step, Step::Done(_)));
    assert!(join(&flight, "a = ").is_none(), "it is over");
}

#[tokio::test]
async fn who_typed_is_given_the_rest_when_it_is_worth_showing() {
    let (flight, _leader) = flight("a = ");
    let mut typed = join(&flight, "a = one").unwrap();
    for piece in ["on", "e", " ", "t", "wo"] {
        say(&flight, piece);
    }
    done(&flight, "one two");
    let (text, step) = read(&mut typed, false).await;
    assert_eq!(text, " two");
    assert!(matches!(step, Step::Done(_)));
}

#[tokio::test]
async fn who_typed_something_else_or_all_of_it_is_alone() {
    let (first, _leader) = flight("a = ");
    let mut other = join(&first, "a = tw").unwrap();
    say(&first, "one");
    assert!(matches!(read(&mut other, false).await.1, Step::Alone));
    let (second, _leader) = flight("a = ");
    let mut all = [join(&second, "a = one").unwrap(), join(&second, "a = on").unwrap()];
    say(&second, "one");
    done(&second, "one");
    for reader in &mut all {
        assert!(matches!(read(reader, false).await.1, Step::Alone), "nothing to show");
        assert!(matches!(reader.whole().await, Step::Alone));
    }
}

#[tokio::test]
async fn what_is_lost_before_anybody_sent_it_begins_again() {
    let (flight, mut leader) = flight("a = ");
    say(&flight, "one");
    assert_eq!(read(&mut leader, false).await.0, "one");
    assert!(flight.lost(), "nobody sent any of it");
    assert!(!leader.commit(), "what was given is void");
    say(&flight, "two");
    assert_eq!(read(&mut leader, false).await.0, "two");
    assert!(leader.commit());
    assert!(!flight.lost(), "it was sent");
    flight.end(End::Broken(Outcome::Abandoned));
    assert!(matches!(read(&mut leader, true).await.1, Step::Broken(_)));
}

#[tokio::test]
async fn a_followers_time_is_its_own() {
    let (flight, mut leader) = flight("a = ");
    let mut follower = join(&flight, "a = ").unwrap();
    flight.end(End::Failed(Reject::Deadline));
    assert!(matches!(leader.whole().await, Step::Failed(Reject::Deadline)));
    assert!(matches!(follower.whole().await, Step::Alone));
}

#[tokio::test]
async fn it_stops_when_the_last_reader_leaves_and_not_before() {
    let (flight, leader) = flight("a = ");
    let follower = join(&flight, "a = ").unwrap();
    let task = tokio::spawn(std::future::pending::<()>());
    flight.driven_by(task.abort_handle());
    drop(leader);
    tokio::task::yield_now().await;
    assert!(!task.is_finished());
    drop(follower);
    assert!(task.await.unwrap_err().is_cancelled());
    assert!(join(&flight, "a = ").is_none(), "nobody drives it any more");
}

#[tokio::test]
async fn who_is_superseded_gives_up_unless_it_has_sent_something() {
    let (flight, mut leader) = flight("a = ");
    leader.superseded().notify_one();
    assert!(matches!(leader.whole().await, Step::Superseded));
    leader.superseded().notify_one();
    say(&flight, "one");
    done(&flight, "one");
    assert!(matches!(read(&mut leader, true).await.1, Step::Done(_)));
}

#[tokio::test]
async fn nobody_joins_who_has_more_right_or_more_time_or_by_a_rule_that_is_off() {
    let (flight, _leader) = flight("a = ");
    let exact_only = [true, false, false, false];
    let joins = |prompt, terms, allowed| join_as(&flight, prompt, terms, allowed).is_some();
    assert!(joins("a = ", terms(Kind::Agent), exact_only));
    assert!(!joins("a = x", terms(Kind::Inline), exact_only));
    let patient = Terms {
        patience: terms(Kind::Inline).deadline + Duration::from_secs(9),
        ..terms(Kind::Inline)
    };
    assert!(!joins("a = ", patient, exact_only));
    let slow = Flight::new(Some(asked("a = ")), terms(Kind::Agent));
    let _leader = slow.lead();
    assert!(join(&slow, "a = ").is_none(), "it waits behind all inline requests");
    say(&slow, "x");
    assert!(join(&slow, "a = ").is_some(), "its turn has come");
}
