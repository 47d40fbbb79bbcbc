use super::*;

fn check(resolv: &str, name: &str, expected: &[&str]) {
    let names = Servers::read(resolv).candidates(name).unwrap();
    let names: Vec<String> = names.iter().map(Name::to_string).collect();
    assert_eq!(names, expected, "{name} with {resolv:?}");
}

#[test]
fn servers_are_those_of_the_file_and_this_machine_where_it_names_none() {
    let check = |text, expected: &[&str]| {
        let servers: Vec<String> =
            Servers::read(text).servers.iter().map(IpAddr::to_string).collect();
        assert_eq!(servers, expected, "{text:?}");
    };
    check(
        "nameserver 192.0.2.1\n  nameserver\t2001:db8::1 # ours\n",
        &["192.0.2.1", "2001:db8::1"],
    );
    check("# nameserver 192.0.2.1\n; nameserver 192.0.2.2\n", &["127.0.0.1"]);
    check("nameserver\nnameserver example.com\nnameserver fe80::1%eth0", &["127.0.0.1"]);
    check(
        "nameserver 192.0.2.1\nnameserver 192.0.2.2\nnameserver 192.0.2.3\nnameserver 192.0.2.4",
        &["192.0.2.1", "192.0.2.2", "192.0.2.3"],
    );
}

#[test]
fn a_name_with_few_dots_is_looked_for_in_the_search_domains_first() {
    let pod = "search a.svc.cluster.local svc.cluster.local\noptions ndots:5 timeout:1";
    let all = ["pods.a.svc.cluster.local.", "pods.svc.cluster.local.", "pods."];
    check(pod, "pods", &all);
    check(pod, "pods.", &["pods."]);
    check("search lan", "pods.example.com", &["pods.example.com.", "pods.example.com.lan."]);
    check("search lan", "pods", &["pods.lan.", "pods."]);
    check("search one\ndomain two", "pods", &["pods.two.", "pods."]);
    check("", "pods", &["pods."]);
    check("options ndots:99\nsearch x", "a.b.c", &["a.b.c.x.", "a.b.c."]);
    check("options ndots:1 ndots:4\nsearch x", "a.b.c", &["a.b.c.x.", "a.b.c."]);
}

#[test]
fn what_is_no_name_is_trouble() {
    let long = "a".repeat(64);
    for name in ["", ".", "a..b", "a\u{e9}.example", long.as_str()] {
        let read = Servers::default().candidates(name);
        if name == "." {
            assert!(read.is_ok());
        } else {
            assert_eq!(read, Err(Trouble::NotAName(name.to_owned())));
        }
    }
}

#[test]
fn hosts_are_found_whatever_their_case_and_localhost_always() {
    let hosts = Hosts::read(
        "192.0.2.1 pods Pods.Example.com # and more\n\
         2001:db8::1\tpods\n# 192.0.2.9 pods\nnonsense pods\n192.0.2.2 db.localhost\n",
    );
    let check = |name, expected: Option<&[&str]>| {
        let expected = expected.map(|ips| ips.iter().map(|ip| ip.parse().unwrap()).collect());
        assert_eq!(hosts.addresses(name), expected, "{name}");
    };
    check("pods", Some(&["192.0.2.1", "2001:db8::1"]));
    check("PODS.example.COM.", Some(&["192.0.2.1"]));
    check("pods.example", None);
    check("localhost", Some(&["127.0.0.1", "::1"]));
    check("a.LOCALHOST.", Some(&["127.0.0.1", "::1"]));
    check("db.localhost", Some(&["192.0.2.2"]));
    check("notlocalhost", None);
}
