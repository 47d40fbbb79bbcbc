//! The section `edge.l3`.

use super::*;
use crate::{L3Mode, L3Scope};

const LOCAL: &str = "  local: {roles: [embed]}\n";
const ORIGIN: &str = "origin:\n  listen: 127.0.0.1:4\n  admin: {listen: '127.0.0.1:5'}\n  models: [{folder: /b, aliases: [embed]}]\n";

fn with(l3: &str) -> String {
    format!("{KEY}{EDGE}{LOCAL}  l3: {l3}\n{ORIGIN}")
}

#[test]
fn a_semantic_cache_takes_every_default() {
    let text =
        with("{embedder: embed, routes: [{tenant: dev, model: m, mode: serve}, {mode: shadow}]}");
    let l3 = Config::read(&text, "f", &no_env).unwrap().edge.unwrap().l3.unwrap();
    assert_eq!((l3.floor, l3.sure, l3.wrong, l3.judged), (0.95, 0.97, 0.02, 300));
    assert_eq!((l3.scope, l3.explore), (L3Scope::User, 0.05));
    assert_eq!(l3.tenant_bytes.0 * 4, l3.bytes.0);
    let mode = |tenant, model| {
        l3.routes.iter().find(|route| route.is_of(tenant, [model].into_iter())).unwrap().mode
    };
    assert_eq!(mode("dev", "m"), L3Mode::Serve);
    assert_eq!(mode("dev", "n"), L3Mode::Shadow);
    assert_eq!(mode("x", "m"), L3Mode::Shadow);
}

#[test]
fn mistakes_in_a_semantic_cache_are_all_told() {
    let routes = "routes: [{mode: shadow}]";
    check(
        &with(&format!(
            "{{embedder: other, {routes}, floor: 0.9, wrong: 0, judged: 5, explore: 0, bytes: 300MiB, patience: 5s, ttl: 8d, judge: {{similarity: 2}}, snapshot: /x}}"
        )),
        &expect![[r#"
            edge.yaml has 10 mistakes:
              edge.l3.floor: is not within 0.95 and 1. It can be raised from 0.95 only
              edge.l3.wrong: is not within 0.006 and 0.25. 0.02 is one in fifty; less than 0.006 can never be shown
              edge.l3.judged: is not within 20 and 10000. 300 bound an error of 1 %
              edge.l3.explore: is not over 0 and up to 1. 0.05 is one in twenty; without any, nothing would be known
              edge.l3.ttl: "8d" does not fit. Write a duration over zero such as 800ms, 5s or 10m
              edge.l3.patience: is not within 1ms and 1s. 30ms is little beside an answer
              edge.l3.judge.similarity: 2 does not fit. Write a number from 0 to 1
              edge.l3.secret: is missing: what leaves the process is sealed with it. Add one with `openssl rand -hex 32`, the same on every edge of this region
              edge.l3.embedder: `other` is none of edge.local.roles. Add `edge.local` with that role, and the embedder to `origin.models`
              edge.l3.bytes: is not under edge.l1.bytes, 256 MiB, of which it is a part. 60 % of it leaves enough for completions"#]],
    );
    check(
        &with(&format!(
            "{{embedder: embed, {routes}, sure: 0.95, secret: 0123456789abcdef0123456789abcdef, regional: {{url: 'qdrant:6333', collection: 'a b', patience: 20ms, shards: 0}}}}"
        )),
        &expect![[r#"
            edge.yaml has 5 mistakes:
              edge.l3.regional.url: is no URL. Write one such as https://qdrant:6333
              edge.l3.regional.collection: is no collection's name. Write letters, digits, - and _, such as nearhop
              edge.l3.regional.patience: is not within 1ms and 8ms. 8ms is what it may cost
              edge.l3.regional.shards: 0 does not fit. Write a whole number from 1 to 65536
              edge.l3.regional: needs `edge.l2`. Add `edge.l2`: purges reach the other edges by its log"#]],
    );
    check(
        &with("{embedder: embed}"),
        &expect![[r#"
        edge.yaml has 1 mistake:
          edge.l3.routes: is missing: nothing would be looked up. Write {tenant, model, mode} of each; {mode: shadow} is everybody's"#]],
    );
    check(
        &with("{embedder: embed, routes: [{mode: on}]}"),
        &expect![[r#"
        edge.yaml has 1 mistake:
          edge.l3.routes[0].mode: true does not fit. Write off, shadow or serve"#]],
    );
}
