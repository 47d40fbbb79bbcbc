//! Pods, and where an edge learns of them while it runs.
//!
//! Absent on purpose: nothing here asks DNS or watches a file; that a pod of one source is also
//! another's only shows when both are read.

use std::{
    collections::HashSet,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
};

use serde_json::json;

use crate::{
    ConfigError,
    address::{is_host_name, split_target},
    reader::{LIST_MAX, Problems, Section, parse_yaml},
};

/// One inference pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pod {
    /// Its name in headers, metrics and logs.
    pub name: String,
    /// Its serving listener.
    pub address: SocketAddr,
}

/// Where an edge learns of pods while it runs.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum PodSource {
    /// A list of pods as [`read_pods`] takes it, read again when it changes. Who writes it replaces
    /// it in one step, by renaming: half a list is a list too.
    File(PathBuf),
    /// Every A and AAAA record of a name is a pod's address.
    Addresses {
        /// The name.
        name: String,
        /// The port of every pod.
        port: u16,
    },
    /// Every SRV record of a name (RFC 2782), `_service._proto.name`, is a pod's host and port.
    Services(String),
}

/// More sources than anybody has; each is asked again and again.
const SOURCES_MAX: usize = 16;

/// Reads a list of pods, `{name, address}` each, from YAML or JSON. `path` is only for messages,
/// and variables are not put in: such files are written by programs.
///
/// An empty list is one; an empty file is not: it may be half written, and would take every pod out.
///
/// # Errors
/// [`ConfigError::NotYaml`], or [`ConfigError::Invalid`] with every mistake in the list.
pub fn read_pods(text: &str, path: &str) -> Result<Vec<Pod>, ConfigError> {
    let tree = parse_yaml(text, path)?;
    let problems = Problems::default();
    if tree.is_null() {
        problems.add("pods", "is empty", "Write a list of {name, address}; [] is none");
    }
    let mut root = Section::root(json!({ "pods": tree }), &problems);
    let pods = listed(&mut root);
    let problems = problems.into_list();
    match pods {
        Some(pods) if problems.is_empty() => Ok(pods),
        _ => Err(ConfigError::Invalid { path: path.to_owned(), problems }),
    }
}

/// The list `pods` of a section; `None` where something in it could not be read.
pub(crate) fn listed(section: &mut Section<'_>) -> Option<Vec<Pod>> {
    let sections = section.sections("pods");
    if sections.len() > LIST_MAX {
        let what = format!("has {} pods", sections.len());
        section.problem("pods", what, format!("List at most {LIST_MAX}"));
        return None;
    }
    let (mut names, mut addresses) = (HashSet::new(), HashSet::new());
    let mut all = Some(Vec::new());
    for mut section in sections {
        let name: Option<String> = section.required("name");
        let address: Option<SocketAddr> = section.required("address");
        if name.as_ref().is_some_and(|name| !names.insert(name.clone())) {
            section.problem("name", "is used twice", "Give each pod a name of its own");
        }
        if address.is_some_and(|address| !addresses.insert(address)) {
            section.problem("address", "is another pod's", "List each pod once");
        }
        section.finish();
        match (name, address, all.as_mut()) {
            (Some(name), Some(address), Some(all)) => all.push(Pod { name, address }),
            _ => all = None,
        }
    }
    all
}

/// The list `pods_from` of an edge.
pub(crate) fn read_sources(edge: &mut Section<'_>) -> Option<Vec<PodSource>> {
    let sections = edge.sections("pods_from");
    if sections.len() > SOURCES_MAX {
        let what = format!("has {} sources", sections.len());
        edge.problem("pods_from", what, format!("List at most {SOURCES_MAX}"));
        return None;
    }
    let mut seen = HashSet::new();
    let sources: Vec<Option<PodSource>> = sections
        .into_iter()
        .map(|mut section| {
            let source = PodSource::from_fields(&mut section);
            if source.as_ref().is_some_and(|source| !seen.insert(source.clone())) {
                section.problem(
                    source.as_ref().map_or("file", PodSource::field),
                    "is listed twice",
                    "List each source once",
                );
            }
            section.finish();
            source
        })
        .collect();
    sources.into_iter().collect()
}

impl PodSource {
    const fn field(&self) -> &'static str {
        match self {
            Self::File(_) => "file",
            Self::Addresses { .. } => "dns",
            Self::Services(_) => "srv",
        }
    }

    fn from_fields(section: &mut Section<'_>) -> Option<Self> {
        let given = ["file", "dns", "srv"].map(|field| section.has(field)).map(usize::from);
        let file: Option<PathBuf> = section.optional("file");
        let dns: Option<String> = section.optional("dns");
        let srv: Option<String> = section.optional("srv");
        if given.iter().sum::<usize>() != 1 {
            let fix = "Write exactly one of `file: PATH`, `dns: NAME:PORT` and `srv: _SERVICE._PROTO.NAME`";
            section.problem("file", "is not the one thing to ask for pods", fix);
            return None;
        }
        match (file, dns, srv) {
            (Some(path), ..) => Some(Self::File(path)),
            (_, Some(target), _) => {
                let read = read_target(&target);
                if read.is_none() {
                    let fix = "Write one such as pods.example.com:8091; addresses go to `pods`";
                    section.problem("dns", "is no domain name with a port", fix);
                }
                let (name, port) = read?;
                Some(Self::Addresses { name, port })
            }
            (.., Some(name)) => {
                if !is_service(&name) {
                    let fix = "Write one such as _http._tcp.pods.example.com";
                    section.problem("srv", "is no name of a service", fix);
                    return None;
                }
                Some(Self::Services(name))
            }
            _ => None,
        }
    }
}

fn read_target(target: &str) -> Option<(String, u16)> {
    let (name, port) = split_target(target)?;
    (name.parse::<IpAddr>().is_err() && is_host_name(name)).then(|| (name.to_owned(), port))
}

/// `_service._proto.name`.
fn is_service(name: &str) -> bool {
    let label = |label: &str| label.len() > 1 && label.starts_with('_');
    let mut labels = name.splitn(3, '.');
    is_host_name(name)
        && labels.next().is_some_and(label)
        && labels.next().is_some_and(label)
        && labels.next().is_some_and(|rest| !rest.is_empty())
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;

    fn check(text: &str, expected: &Expect) {
        let told = match read_pods(text, "pods.yaml") {
            Ok(pods) => pods.iter().map(|pod| format!("{} {}\n", pod.name, pod.address)).collect(),
            Err(error) => error.to_string(),
        };
        expected.assert_eq(&told);
    }

    #[test]
    fn a_list_of_pods_is_read_from_yaml_and_json() {
        let expected = expect![[r#"
            a 192.0.2.1:8091
            b [2001:db8::1]:8091
        "#]];
        check(
            "- {name: a, address: '192.0.2.1:8091'}\n- {name: b, address: '[2001:db8::1]:8091'}\n",
            &expected,
        );
        check(
            r#"[{"name": "a", "address": "192.0.2.1:8091"}, {"name": "b", "address": "[2001:db8::1]:8091"}]"#,
            &expected,
        );
    }

    #[test]
    fn an_empty_list_is_no_pods_and_an_empty_file_is_a_mistake() {
        check("[]", &expect![""]);
        check(
            "",
            &expect![[r#"
            pods.yaml has 1 mistake:
              pods: is empty. Write a list of {name, address}; [] is none"#]],
        );
        check(
            "pods: []",
            &expect![[r#"
            pods.yaml has 1 mistake:
              pods: is not a list. Start each item with `- `"#]],
        );
    }

    #[test]
    fn every_mistake_in_a_list_of_pods_is_told() {
        check(
            "- {name: a, address: 'pod-1:8091'}\n- {name: a, address: '192.0.2.1:1'}\n- {address: '192.0.2.1:1', weight: 2}\n",
            &expect![[r#"
                pods.yaml has 5 mistakes:
                  pods[0].address: "pod-1:8091" does not fit. Write an IP address and a port such as 127.0.0.1:8080 or [::1]:8080
                  pods[1].name: is used twice. Give each pod a name of its own
                  pods[2].name: is missing. Add it: text of 1 to 256 characters, in quotes where it looks like a number
                  pods[2].address: is another pod's. List each pod once
                  pods[2].weight: is not a field of this section. Known here: name, address"#]],
        );
        check(
            "- {name: [\n",
            &expect!["pods.yaml is not valid YAML: unclosed bracket '[' at line 1, column 10"],
        );
    }

    #[test]
    fn a_list_of_pods_has_an_end() {
        let pods = |n: usize| -> String {
            (1..=n)
                .map(|port| format!("- {{name: p{port}, address: '192.0.2.1:{port}'}}\n"))
                .collect()
        };
        assert_eq!(read_pods(&pods(1024), "p").unwrap().len(), 1024);
        check(
            &pods(1025),
            &expect![[r#"
            pods.yaml has 1 mistake:
              pods: has 1025 pods. List at most 1024"#]],
        );
    }

    #[test]
    fn a_service_is_named_as_rfc_2782_says() {
        let check = |name: &str, expected| assert_eq!(is_service(name), expected, "{name}");
        check("_http._tcp.pods.example.com", true);
        check("_http._tcp.pods.", true);
        check("_http._tcp", false);
        check("_http._tcp.", false);
        check("_._tcp.pods", false);
        check("http._tcp.pods", false);
        check("pods.example.com", false);
        check("_http._tcp.a b", false);
    }
}
