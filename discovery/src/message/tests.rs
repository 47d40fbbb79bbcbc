use hickory_proto::{
    op::OpCode,
    rr::{
        Record,
        rdata::{NS, SOA},
    },
};
use proptest::prelude::*;

use super::*;
use crate::testing::{name, record, reply};

fn question() -> Question {
    Question::new(name("pods.example."), RecordType::A)
}

/// An answer with `code` and these records; `authority` is a TTL of SOA, or NS.
fn message(question: &Question, code: ResponseCode, records: &[&str], authority: &str) -> Vec<u8> {
    let mut answer = reply(&question.message);
    answer.metadata.response_code = code;
    answer.add_answers(records.iter().map(|line| record(line)));
    let data = match authority.parse() {
        Ok(minimum) => Some(RData::SOA(SOA::new(name("ns."), name("root."), 1, 1, 1, 1, minimum))),
        Err(_) if authority == "NS" => Some(RData::NS(NS(name("ns.")))),
        Err(_) => None,
    };
    answer.add_authorities(data.map(|data| Record::from_rdata(name("example."), 3600, data)));
    answer.to_vec().unwrap()
}

fn check(code: ResponseCode, records: &[&str], authority: &str, expected: &str) {
    let question = question();
    let told = match question.hear(&message(&question, code, records, authority)) {
        None => "ignored".to_owned(),
        Some(Heard::Truncated) => "truncated".to_owned(),
        Some(Heard::Refused(code)) => code,
        Some(Heard::Reply(Reply::Records { data, ttl })) => {
            let data: Vec<String> = data.iter().map(RData::to_string).collect();
            format!("{} for {}", data.join(" "), ttl.as_secs())
        }
        Some(Heard::Reply(Reply::Nothing { ttl })) => {
            format!("nothing for {:?}", ttl.map(|ttl| ttl.as_secs()))
        }
        Some(Heard::Reply(Reply::Alias { to, ttl })) => format!("see {to} for {}", ttl.as_secs()),
    };
    assert_eq!(told, expected, "{records:?} {authority}");
}

#[test]
fn an_answer_is_the_records_at_the_end_of_the_chain_for_the_shortest_ttl() {
    use ResponseCode::NoError;
    check(
        NoError,
        &["pods.example. 9 A 192.0.2.1", "PODS.example. 5 A 192.0.2.2"],
        "",
        "192.0.2.1 192.0.2.2 for 5",
    );
    let chain = [
        "c. 60 A 192.0.2.3",
        "pods.example. 7 CNAME b.",
        "b. 30 CNAME c.",
        "d. 1 A 192.0.2.4",
        "c. 1 AAAA ::1",
    ];
    check(NoError, &chain, "", "192.0.2.3 for 7");
    check(NoError, &["pods.example. 7 CNAME b.", "b. 3 CNAME c."], "", "see c. for 3");
}

#[test]
fn records_of_another_name_or_kind_are_none() {
    use ResponseCode::NoError;
    check(
        NoError,
        &["evil. 9 A 192.0.2.1", "pods.example. 9 AAAA ::1"],
        "5",
        "nothing for Some(5)",
    );
    check(NoError, &["evil. 9 CNAME pods.example."], "", "nothing for None");
}

#[test]
fn nothing_has_the_ttl_of_its_zone() {
    use ResponseCode::{NXDomain, NoError};
    check(NXDomain, &[], "30", "nothing for Some(30)");
    check(NXDomain, &[], "99999", "nothing for Some(3600)");
    check(NXDomain, &[], "", "nothing for None");
    check(NoError, &[], "30", "nothing for Some(30)");
    check(NXDomain, &["pods.example. 7 CNAME gone."], "", "nothing for None");
    check(NoError, &["pods.example. 7 CNAME b."], "30", "nothing for Some(30)");
}

#[test]
fn a_server_that_does_not_know_has_not_said_that_there_is_nothing() {
    use ResponseCode::{NoError, Refused, ServFail};
    check(ServFail, &[], "", "Server Failure");
    check(ServFail, &["pods.example. 7 A 192.0.2.1"], "", "Server Failure");
    check(Refused, &[], "30", "Query Refused");
    check(NoError, &[], "NS", "to ask another (it does not recurse)");
}

#[test]
fn a_circle_of_aliases_ends() {
    let circle = ["pods.example. 7 CNAME b.", "b. 7 CNAME pods.example."];
    check(ResponseCode::NoError, &circle, "", "see b. for 7");
}

#[test]
fn what_answers_another_question_is_ignored() {
    let asked = question();
    let good = |change: &dyn Fn(&mut Message)| {
        let mut answer = reply(&asked.message);
        answer.add_answer(record("pods.example. 9 A 192.0.2.1"));
        change(&mut answer);
        asked.hear(&answer.to_vec().unwrap())
    };
    let query = |name_of, kind| Query::query(name(name_of), kind);
    assert!(good(&|_| ()).is_some());
    assert_eq!(good(&|answer| answer.metadata.id ^= 1), None);
    assert_eq!(good(&|answer| answer.metadata.message_type = MessageType::Query), None);
    assert_eq!(good(&|answer| answer.metadata.op_code = OpCode::Notify), None);
    assert_eq!(good(&|answer| answer.queries.clear()), None);
    assert_eq!(good(&|answer| answer.queries = vec![query("evil.", RecordType::A)]), None);
    assert_eq!(
        good(&|answer| answer.queries = vec![query("pods.example.", RecordType::AAAA)]),
        None
    );
    assert_eq!(good(&|answer| answer.queries.push(query("evil.", RecordType::A))), None);
    let mut short = reply(&asked.message);
    short.queries.clear();
    short.metadata.response_code = ResponseCode::FormErr;
    assert!(matches!(asked.hear(&short.to_vec().unwrap()), Some(Heard::Refused(_))));
}

#[test]
fn a_truncated_answer_is_asked_for_by_tcp_wherever_it_ends() {
    let asked = question();
    let mut answer = reply(&asked.message);
    answer.add_answer(record("pods.example. 9 A 192.0.2.1"));
    answer.metadata.truncation = true;
    let bytes = answer.to_vec().unwrap();
    for end in 3..=bytes.len() {
        assert_eq!(asked.hear(&bytes[..end]), Some(Heard::Truncated));
    }
}

proptest! {
    #[test]
    fn whatever_comes_is_read_or_ignored(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let asked = question();
        let _ = asked.hear(&bytes);
        let mut ours = asked.message.metadata.id.to_be_bytes().to_vec();
        ours.extend([0x80, 0]);
        ours.extend(&bytes);
        let _ = asked.hear(&ours);
    }

    #[test]
    fn an_answer_of_which_a_bit_was_turned_adds_no_name(
        at in 0..2000_usize, lines in prop::collection::vec(0..4_usize, 1..6),
    ) {
        let known = [
            "pods.example. 9 A 192.0.2.1",
            "pods.example. 9 CNAME b.",
            "b. 9 CNAME c.",
            "c. 9 A 192.0.2.2",
        ];
        let asked = question();
        let lines: Vec<&str> = lines.into_iter().map(|line| known[line]).collect();
        let mut bytes = message(&asked, ResponseCode::NoError, &lines, "5");
        let bits = bytes.len() * 8;
        bytes[at % bits / 8] ^= 1 << (at % 8);
        if let Some(Heard::Reply(Reply::Records { data, .. })) = asked.hear(&bytes) {
            prop_assert!(data.iter().all(|data| data.record_type() == RecordType::A));
        }
    }
}
