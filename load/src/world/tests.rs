use std::path::Path;

use expect_test::expect;
use nearhop_conf::Config;
use serde_json::json;

use super::*;
use crate::action::Action;

fn asked(regions: &str) -> Asked {
    Asked { regions: regions.to_owned(), pods: 2, servers: 2, scale: 1.0 }
}

/// Sites are numbered as the emulator numbers them.
fn world(regions: &str) -> World {
    world_of(&asked(regions))
}

fn world_of(asked: &Asked) -> World {
    let layout = Layout::new(asked).unwrap();
    let sites: Vec<String> = layout.sites().into_iter().map(str::to_owned).collect();
    World::new(layout, |name| {
        let at = sites.iter().position(|site| site == name).unwrap();
        Ipv4Addr::new(10, 128, 0, u8::try_from(at + 1).unwrap())
    })
}

fn material() -> Material {
    let key = |tenant: &str| Key {
        tenant: tenant.to_owned(),
        key: format!("nh-{tenant}"),
        hash: format!("{:064x}", tenant.len()),
    };
    let tls = json!({
        "certificate": "/c/node.pem", "key": "/c/node-key.pem",
        "ca": "/c/ca.pem", "names": ["node.nearhop.test"],
    });
    Material {
        key_secret: "a-secret-of-this-run-only-0123456789".to_owned(),
        keys: vec![key("dev"), key("team")],
        admin_token: "nh-dev-admin-token".to_owned(),
        tls,
        mmdb: "/c/places.mmdb".into(),
        model: "/m/nearhop-mini".into(),
        model_name: "nearhop-mini".to_owned(),
    }
}

#[test]
fn regions_are_named_or_counted_and_mistakes_are_answered_with_what_there_is() {
    let names = |asked_for: &str| Layout::new(&asked(asked_for)).unwrap().sites().join(" ");
    assert_eq!(names("3"), "us-west eu-west ap-south dns-1 dns-2");
    assert_eq!(names("ap-south, us-west"), "ap-south us-west dns-1 dns-2");
    let ours = "write some of us-west, eu-west, ap-south, or how many: 1 to 3";
    for (asked, expected) in [
        (asked("4"), format!("--regions is 4; {ours}")),
        (asked("0"), format!("--regions is 0; {ours}")),
        (asked("mars"), format!("--regions has `mars`; {ours}")),
        (asked("us-west,us-west"), "--regions has `us-west` twice".to_owned()),
        (Asked { pods: 0, ..asked("1") }, "--pods is 0; write 1 to 50".to_owned()),
        (Asked { servers: 4, ..asked("1") }, "--dns-servers is 4; write 1 to 3".to_owned()),
        (Asked { scale: f64::NAN, ..asked("1") }, "--delay-scale is NaN; write 0 to 2".to_owned()),
    ] {
        assert_eq!(Layout::new(&asked).unwrap_err().to_string(), expected);
    }
    let few = Layout::new(&Asked { servers: 1, ..asked("1") }).unwrap_err().to_string();
    assert!(few.contains("--dns-servers 2"), "{few}");
}

#[test]
fn delays_are_those_between_such_places() {
    let delays = |links: Vec<Link>| {
        let line = |link: Link| format!("{} {} {}", link.one, link.other, link.delay.as_millis());
        links.into_iter().map(line).collect::<Vec<_>>().join("\n")
    };
    let mut world = world("3");
    expect![[r#"
        us-west eu-west 69
        us-west ap-south 115
        us-west dns-1 32
        us-west dns-2 77
        us-west host 2
        eu-west ap-south 64
        eu-west dns-1 46
        eu-west dns-2 9
        eu-west host 2
        ap-south dns-1 109
        ap-south dns-2 55
        ap-south host 2
        dns-1 dns-2 55
        dns-1 host 2
        dns-2 host 2"#]]
    .assert_eq(&delays(world.links()));
    world.took(&Step::Delay("us-west".to_owned(), 200));
    let slowed = delays(world.links());
    assert!(slowed.contains("us-west host 202") && slowed.contains("eu-west host 2\n"), "{slowed}");
}

#[test]
fn every_configuration_is_a_good_one() {
    for (regions, scale) in [("1", 1.0), ("2", 0.0), ("3", 1.0), ("3", 2.0)] {
        let world = world_of(&Asked { scale, ..asked(regions) });
        for node in world.nodes() {
            let config = world.config(node, &material(), Path::new("/d"));
            Config::read(&config.to_string(), &node.name, &|_| None)
                .unwrap_or_else(|error| panic!("{error}"));
        }
    }
}

#[test]
fn a_node_knows_the_others_and_not_itself_for_a_witness() {
    let world = world("3");
    let config = |name: &str| {
        let node = world.nodes().iter().find(|node| node.name == name).unwrap();
        world.config(node, &material(), Path::new("/d"))
    };
    let edge = config("us-west/edge");
    assert_eq!(
        edge["edge"]["pods"],
        json!([
            {"name": "us-west/pod-1", "address": "10.128.0.1:9001"},
            {"name": "us-west/pod-2", "address": "10.128.0.1:9002"},
        ])
    );
    assert_eq!(edge["edge"]["peer"]["name"], "us-west");
    assert_eq!(edge["access"]["usage_file"], "/d/usage.db");
    assert_eq!(edge["health"]["witnesses"], json!(["10.128.0.4:5300", "10.128.0.5:5300"]));
    assert_eq!(config("dns-1")["health"]["witnesses"], json!(["10.128.0.5:5300"]));
    assert_eq!(config("eu-west/pod-2")["origin"]["listen"], "10.128.0.2:9002");
}

#[test]
fn a_target_says_where_everything_is() {
    let target = world("us-west").target(&material(), Path::new("/t/control.sock"));
    assert_eq!(
        target,
        json!({
            "model": "nearhop-mini",
            "keys": [{"key": "nh-dev", "tenant": "dev"}, {"key": "nh-team", "tenant": "team"}],
            "admin_token": "nh-dev-admin-token",
            "control": "/t/control.sock",
            "dns": {
                "name": "complete.example.com",
                "servers": ["10.128.0.2:5300", "10.128.0.3:5300"],
                "port": 8080,
            },
            "regions": [{
                "name": "us-west",
                "clients": "192.0.2.0/24",
                "url": "http://10.128.0.1:8080",
                "admin": "10.128.0.1:8081",
                "pods": ["10.128.0.1:9101", "10.128.0.1:9102"],
            }],
        })
    );
}

/// Does an action, and says what it did or why not.
fn act(world: &mut World, action: &Action) -> String {
    match world.steps(action) {
        Err(refusal) => refusal.to_string(),
        Ok(steps) => {
            steps.iter().for_each(|step| world.took(step));
            tell(&steps)
        }
    }
}

fn kill(count: usize, region: Option<&str>) -> Action {
    Action::KillLlmNodes { count, region: region.map(str::to_owned) }
}

#[test]
fn pods_are_taken_from_one_region_after_the_other() {
    for (count, region, expected) in [
        (1, None, "killed us-west/pod-1"),
        (4, None, "killed us-west/pod-1, eu-west/pod-1, ap-south/pod-1, us-west/pod-2"),
        (2, Some("eu-west"), "killed eu-west/pod-1, eu-west/pod-2"),
        (
            7,
            None,
            "count is 7, and 6 pods of all regions together run; write up to that, or undo first",
        ),
        (
            3,
            Some("eu-west"),
            "count is 3, and 2 pods of eu-west run; write up to that, or undo first",
        ),
        (0, None, "count is 0; write 1 or more"),
        (
            1,
            Some("mars"),
            "region is `mars`, which is not here; write one of us-west, eu-west, ap-south",
        ),
    ] {
        assert_eq!(act(&mut world("3"), &kill(count, region)), expected);
    }
}

#[test]
fn what_is_dead_or_stopped_already_is_left_alone() {
    let mut world = world("3");
    assert_eq!(act(&mut world, &kill(1, Some("us-west"))), "killed us-west/pod-1");
    let pause = Action::PauseLlmNodes { count: 2, region: None };
    assert_eq!(act(&mut world, &pause), "paused us-west/pod-2, eu-west/pod-1");
    let slow = Action::SlowLlmNodes { count: 2, region: None, times: 5 };
    assert_eq!(act(&mut world, &slow), "slowed eu-west/pod-2 5 times, ap-south/pod-1 5 times");
    assert_eq!(
        act(&mut world, &kill(3, None)),
        "killed eu-west/pod-2, ap-south/pod-1, ap-south/pod-2",
        "slow ones run, paused ones do not"
    );
    let edge = Action::KillEdge { region: "eu-west".to_owned() };
    assert_eq!(act(&mut world, &edge), "killed eu-west/edge");
    assert!(act(&mut world, &edge).contains("does not run"));
}

#[test]
fn an_undo_puts_everything_right_pods_before_edges_and_then_has_nothing_to_do() {
    let mut world = world("3");
    let fresh = world.clone();
    let region = || "us-west".to_owned();
    for action in [
        Action::KillEdge { region: region() },
        kill(2, None),
        Action::PauseLlmNodes { count: 1, region: Some(region()) },
        Action::NetworkPartition { region: region() },
        Action::FillDisk { region: region() },
        Action::SlowNetwork { region: "eu-west".to_owned(), delay_ms: 300 },
    ] {
        act(&mut world, &action);
    }
    world.ended("dns-2");
    let state = world.state(|_| Some(7));
    assert_eq!((state.cuts, state.full_disks), (vec![region()], vec![region()]));
    assert_eq!(state.slow_networks, [("eu-west".to_owned(), 300)]);
    let node = state.nodes.iter().find(|node| node.name == "us-west/pod-1").unwrap();
    assert_eq!((node.state, node.pid), ("killed", None));
    expect![[
        "healed us-west; no delay any more at eu-west; cleared the disk of us-west; let go on us-west/pod-2; started us-west/pod-1, eu-west/pod-1, dns-2, us-west/edge"
    ]]
    .assert_eq(&act(&mut world, &Action::Undo {}));
    assert_eq!(world.state(|_| Some(7)), fresh.state(|_| Some(7)));
    assert_eq!(act(&mut world, &Action::Undo {}), "nothing was to be done");
}
