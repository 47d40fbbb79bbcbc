use super::*;

const PARTITION: Partition = Partition(*b"\x00\x01partition\xfd\xfe\xff12");
const WANTED: Wanted<'_> =
    Wanted { partition: PARTITION, vector: &[0.6, 0.8], floor: 0.95, most: 2 };

fn point() -> Point {
    Point {
        id: 0x0123_4567_89ab_cdef_0123_4567_89ab_cdef,
        partition: PARTITION,
        owner: Owner { tenant: 1, scope: u64::MAX, model: 3, session: 0 },
        vector: vec![0.6, 0.8],
        stored: 1_700_000_000,
        generation: 7,
        sealed: b"sealed".to_vec(),
    }
}

fn parsed(body: &[u8]) -> Value {
    serde_json::from_slice(body).unwrap()
}

/// An answer with one neighbour, which is a point as it was put, but for one change.
fn answered(change: impl FnOnce(&mut Value)) -> Judged {
    let put = parsed(&upsert(&point()).unwrap());
    let mut scored = put["points"][0].clone();
    scored["score"] = json!(0.99);
    scored["version"] = json!(3);
    change(&mut scored);
    let body = json!({ "result": { "points": [scored] }, "status": "ok", "time": 0.001 });
    neighbours(body.to_string().as_bytes(), &WANTED)
}

#[test]
fn a_point_comes_back_as_it_was_put() {
    let Judged::Believed(found) = answered(|_| {}) else { panic!() };
    let Point { id, owner, stored, generation, sealed, .. } = point();
    let expected = Neighbour { id, similarity: 0.99, owner, stored, generation, sealed };
    assert_eq!(found, [expected]);
}

#[test]
fn what_cannot_be_spoils_the_whole_answer() {
    fn check(change: impl FnOnce(&mut Value), expected: &str) {
        assert_eq!(answered(change), Judged::Impossible(expected.to_owned()));
    }
    let other = "0".repeat(32);
    check(|point| point["payload"]["partition"] = other.into(), "a neighbour of another partition");
    check(|point| point["score"] = json!(1.5), "a cosine that is none");
    check(|point| point["score"] = json!(-7), "a cosine that is none");
    check(|point| point["payload"]["tenant"] = json!("you"), "a neighbour of nobody");
    check(|point| point["payload"]["tenant"] = json!("+000000000000001"), "a neighbour of nobody");
    check(|point| point["payload"]["sealed"] = json!("?"), "a seal that is not base64");
    check(|point| point["id"] = json!("12"), "an id that is none of ours");
    let large = "A".repeat(SEALED_MAX * 2);
    check(|point| point["payload"]["sealed"] = large.into(), "a neighbour that is too large");
}

#[test]
fn what_is_no_answer_is_none() {
    for body in ["", "[]", "null", "<html>", r#"{"result":null}"#, r#"{"result":{"points":[{}]}}"#]
    {
        let judged = neighbours(body.as_bytes(), &WANTED);
        assert!(matches!(judged, Judged::Impossible(_)), "{body}");
    }
    let three = json!({ "result": { "points": [] } }).to_string();
    assert_eq!(neighbours(three.as_bytes(), &WANTED), Judged::Believed(vec![]));
}

#[test]
fn a_neighbour_below_the_floor_is_left_out_and_rounding_above_one_is_one() {
    assert_eq!(answered(|point| point["score"] = json!(0.949)), Judged::Believed(vec![]));
    let Judged::Believed(found) = answered(|point| point["score"] = json!(1.000_000_2)) else {
        panic!()
    };
    assert!((1.0..=1.0).contains(&found[0].similarity));
}

#[test]
fn more_neighbours_than_were_asked_for_are_not_believed() {
    let put = parsed(&upsert(&point()).unwrap());
    let mut scored = put["points"][0].clone();
    scored["score"] = json!(0.99);
    let body = json!({ "result": { "points": [scored, scored, scored] } }).to_string();
    assert!(matches!(neighbours(body.as_bytes(), &WANTED), Judged::Impossible(_)));
}

#[test]
fn every_look_up_is_filtered_by_its_partition() {
    let body = parsed(&query(&WANTED).unwrap());
    assert_eq!(body["filter"]["must"][0]["key"], "partition");
    assert_eq!(body["filter"]["must"][0]["match"]["value"], partition(PARTITION));
    assert_eq!(body["filter"].as_object().unwrap().len(), 1, "nothing may widen it");
}

#[test]
fn no_deletion_has_an_empty_filter() {
    let filter = |what| parsed(&delete(&Cond::of(what)))["filter"]["must"][0].clone();
    let is = |key, value: &str| json!({ "key": key, "match": { "value": value } });
    assert_eq!(filter(Purged::Tenant(1)), is("tenant", "0000000000000001"));
    assert_eq!(filter(Purged::Scope(2)), is("scope", "0000000000000002"));
    assert_eq!(filter(Purged::Model(u64::MAX)), is("model", "ffffffffffffffff"));
    assert_eq!(filter(Purged::Session(4)), is("session", "0000000000000004"));
    assert_eq!(filter(Purged::All), json!({ "key": "stored", "range": { "gte": 0 } }));
    assert_eq!(filter(Purged::Before(9)), json!({ "key": "stored", "range": { "lt": 9 } }));
}

#[test]
fn ids_are_uuids_and_back() {
    for number in [0, 1, u128::MAX, point().id] {
        assert_eq!(id(&uuid(number)), Some(number));
    }
    assert_eq!(uuid(point().id), "01234567-89ab-cdef-0123-456789abcdef");
    assert_eq!(id("01234567-89ab-cdef-0123-456789abcdeg"), None);
}

#[test]
fn a_collection_of_another_kind_is_refused() {
    let body = |size: usize, distance: &str| {
        let vectors = json!({ "size": size, "distance": distance });
        let schema = json!({ "partition": { "data_type": "keyword", "points": 3 } });
        json!({ "result": { "config": { "params": { "vectors": vectors } }, "payload_schema": schema } })
            .to_string()
    };
    let check =
        |size, distance: &str| collection(body(size, distance).as_bytes()).unwrap().check(4);
    assert_eq!(check(4, "Cosine"), Ok(()));
    assert!(check(5, "Cosine").is_err() && check(4, "Dot").is_err());
    let there = collection(body(4, "Cosine").as_bytes()).unwrap();
    assert!(there.is_indexed("partition") && !there.is_indexed("tenant"));
}

#[test]
fn whatever_is_changed_in_an_answer_nothing_breaks() {
    let put = parsed(&upsert(&point()).unwrap());
    let mut scored = put["points"][0].clone();
    scored["score"] = json!(0.99);
    let body = json!({ "result": { "points": [scored] } }).to_string().into_bytes();
    assert!(matches!(neighbours(&body, &WANTED), Judged::Believed(found) if found.len() == 1));
    for at in 0..body.len() {
        assert!(matches!(neighbours(&body[..at], &WANTED), Judged::Impossible(_)), "{at}");
        for byte in [0, b'"', b'{', b']', b'-', b'9', b'e', b'\\', 0xff] {
            let mut changed = body.clone();
            changed[at] = byte;
            if let Judged::Believed(found) = neighbours(&changed, &WANTED) {
                assert!(found.iter().all(|one| (0.95..=1.0).contains(&one.similarity)), "{at}");
            }
        }
    }
}
