//! Who owns which slot: `CLUSTER NODES` as several nodes see it, made one.
//!
//! No single node is believed. One that was paused still calls itself the master of what it lost, so
//! every claim is weighed by its epoch, and the highest wins. That is the rule by which the nodes
//! themselves settle it.

use std::collections::BTreeMap;

use super::slot::SLOTS;

/// Where a node listens.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Address {
    pub(crate) host: String,
    pub(crate) port: u16,
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

impl Address {
    /// `HOST:PORT`, where the host may be an IPv6 address without brackets. An empty one is `asked`'s.
    pub(crate) fn parse(text: &str, asked: &str) -> Option<Self> {
        let (host, port) = text.rsplit_once(':')?;
        let host = if host.is_empty() || host == "?" { asked } else { host };
        Some(Self { host: host.to_owned(), port: port.parse().ok().filter(|&port| port > 0)? })
    }
}

/// One line of a node's view.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Line {
    address: Address,
    /// The name that its certificate bears, where it announces one.
    name: Option<String>,
    failed: bool,
    epoch: u64,
    slots: Vec<(u16, u16)>,
}

/// The whole: every node's address with the name it is verified by, and each slot's owner among them.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Topology {
    pub(crate) nodes: Vec<(Address, Option<String>)>,
    /// An index into `nodes`, by slot.
    pub(crate) owners: Vec<Option<u16>>,
}

/// A node's view, as it answered a connection to the host `asked`. Lines that do not parse are left out.
pub(crate) fn parse(text: &str, asked: &str) -> Vec<Line> {
    text.lines().filter_map(|line| parse_line(line, asked)).collect()
}

/// `id ip:port@bus[,name] flags master ping pong epoch link slot slot …`
fn parse_line(line: &str, asked: &str) -> Option<Line> {
    let mut words = line.split_ascii_whitespace();
    let place = words.nth(1)?;
    let flags: Vec<&str> = words.next()?.split(',').collect();
    if flags.contains(&"noaddr") || flags.contains(&"handshake") {
        return None;
    }
    let epoch = words.nth(3)?.parse().ok()?;
    let (address, rest) = place.split_once('@').unwrap_or((place, ""));
    let name = rest.split(',').nth(1).filter(|name| !name.is_empty() && !name.contains('='));
    // The words in brackets name slots on their way elsewhere: still this node's.
    let slots = words.skip(1).filter(|word| !word.starts_with('['));
    let slots = if flags.contains(&"master") { slots.filter_map(range).collect() } else { vec![] };
    Some(Line {
        address: Address::parse(address, asked)?,
        name: name.map(str::to_owned),
        failed: flags.contains(&"fail"),
        epoch,
        slots,
    })
}

fn range(word: &str) -> Option<(u16, u16)> {
    let (first, last) = word.split_once('-').unwrap_or((word, word));
    let (first, last) = (first.parse().ok()?, last.parse().ok()?);
    (first <= last && last < SLOTS).then_some((first, last))
}

/// All views as one. A node that is failed for everybody, and owns nothing, is left out.
pub(crate) fn merge(views: &[Vec<Line>]) -> Topology {
    let mut claims: Vec<Option<(u64, &Address)>> = vec![None; usize::from(SLOTS)];
    let mut names: BTreeMap<&Address, Option<&str>> = BTreeMap::new();
    for line in views.iter().flatten() {
        if !line.failed {
            names.insert(&line.address, line.name.as_deref());
        }
        for &(first, last) in &line.slots {
            for claim in &mut claims[usize::from(first)..=usize::from(last)] {
                if claim.is_none_or(|(epoch, _)| epoch < line.epoch) {
                    *claim = Some((line.epoch, &line.address));
                }
            }
        }
    }
    let lines = || views.iter().flatten();
    for (_, owner) in claims.iter().flatten() {
        names
            .entry(owner)
            .or_insert_with(|| lines().find(|line| line.address == **owner)?.name.as_deref());
    }
    let position: BTreeMap<&Address, u16> =
        names.keys().zip(0_u16..).map(|(address, position)| (*address, position)).collect();
    let owners = claims.iter().map(|claim| position.get(claim.as_ref()?.1).copied()).collect();
    let nodes =
        names.iter().map(|(address, name)| ((*address).clone(), name.map(str::to_owned))).collect();
    Topology { nodes, owners }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owner(topology: &Topology, slot: usize) -> Option<String> {
        let position = topology.owners[slot]?;
        Some(topology.nodes[usize::from(position)].0.to_string())
    }

    #[test]
    fn a_view_is_read_as_it_is_written() {
        let text = "aa 10.0.0.1:6379@16379,one.example myself,master - 0 0 3 connected 0-5 7 [9->-bb]\n\
                    bb 10.0.0.2:6379@16379,,shard-id=12 slave aa 0 0 3 connected\n\
                    cc :6380@16380 master,fail - 0 0 2 disconnected 8\n\
                    dd :0@0 master,noaddr - 0 0 1 disconnected\n\
                    garbage\n\n";
        let view = parse(text, "seed");
        assert_eq!(view.len(), 3);
        let topology = merge(&[view]);
        let nodes: Vec<String> = topology
            .nodes
            .iter()
            .map(|(address, name)| format!("{address} {}", name.as_deref().unwrap_or("-")))
            .collect();
        assert_eq!(nodes, ["10.0.0.1:6379 one.example", "10.0.0.2:6379 -", "seed:6380 -"]);
        for (slot, expected) in [
            (5, Some("10.0.0.1:6379")),
            (6, None),
            (7, Some("10.0.0.1:6379")),
            (8, Some("seed:6380")),
            (9, None),
        ] {
            assert_eq!(owner(&topology, slot).as_deref(), expected, "{slot}");
        }
    }

    #[test]
    fn the_highest_epoch_owns_a_slot_in_whatever_order() {
        let paused = parse("aa h:1@2 myself,master - 0 0 1 connected 0-9\n", "h");
        let promoted = parse(
            "bb h:2@3 myself,master - 0 0 7 connected 0-9\naa h:1@2 master,fail - 0 0 1 connected",
            "h",
        );
        for views in [vec![paused.clone(), promoted.clone()], vec![promoted.clone(), paused]] {
            assert_eq!(owner(&merge(&views), 4).as_deref(), Some("h:2"));
        }
        // Failed for all that answer, and without a slot: not worth a connection.
        assert_eq!(merge(&[promoted]).nodes.len(), 1);
        assert_eq!(merge(&[]).nodes.len(), 0);
    }

    #[test]
    fn lines_never_make_it_fail() {
        for text in
            ["a b c d e f g h i", "a h:1@2 master - 0 0 1 c 9-1 99999 -1 x-y", "a : : :", "@"]
        {
            assert!(merge(&[parse(text, "h")]).owners.iter().all(Option::is_none), "{text}");
        }
    }
}
