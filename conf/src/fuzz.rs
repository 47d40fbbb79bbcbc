//! Damaged configuration files: whatever is in one, it is read or refused with a reason.
//!
//! The damage is drawn from a fixed seed, so that every run tries the same files.

use crate::{Config, ConfigError, DEFAULT_YAML};

const CASES: usize = 4_000;

/// A few lines of splitmix64: the same numbers everywhere, for ever.
struct Draw(u64);

impl Draw {
    fn next(&mut self, below: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((mixed ^ (mixed >> 31)) % below.max(1) as u64).unwrap()
    }
}

fn damage(text: &str, draw: &mut Draw) -> String {
    const PIECES: [&str; 16] = [
        ": ",
        "- ",
        "[",
        "]",
        "{",
        "}",
        "\"",
        "${",
        "${HOME}",
        "&a ",
        "*a",
        "!!binary ",
        "\t",
        "\u{0}",
        "99999999999999999999",
        "|\n",
    ];
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    for _ in 0..=draw.next(4) {
        let at = draw.next(lines.len());
        match draw.next(6) {
            0 => drop(lines.remove(at)),
            1 => lines.insert(at, lines[draw.next(lines.len())].clone()),
            2 => lines.swap(at, draw.next(text.lines().count()).min(at)),
            3 => lines[at] = format!("  {}", lines[at]),
            _ => {
                let line = &mut lines[at];
                let mut cut = draw.next(line.len() + 1);
                while !line.is_char_boundary(cut) {
                    cut -= 1;
                }
                line.insert_str(cut, PIECES[draw.next(PIECES.len())]);
            }
        }
        if lines.is_empty() {
            lines.push(String::new());
        }
    }
    lines.join("\n")
}

#[test]
fn a_damaged_file_is_read_or_refused_with_a_reason() {
    let mut draw = Draw(4);
    let (mut read, mut refused) = (0, 0);
    for _ in 0..CASES {
        let text = damage(DEFAULT_YAML, &mut draw);
        match Config::read(&text, "fuzz", &|_| None) {
            Ok(_) => read += 1,
            Err(ConfigError::Invalid { problems, .. }) => {
                refused += 1;
                assert!(!problems.is_empty(), "refused without a reason:\n{text}");
                assert!(problems.iter().all(|problem| !problem.fix.is_empty()), "{problems:?}");
            }
            Err(ConfigError::NotYaml { message, .. }) => {
                refused += 1;
                assert!(!message.is_empty());
            }
            Err(ConfigError::Unreadable { .. }) => refused += 1,
        }
    }
    println!("{CASES} damaged files: {read} read, {refused} refused");
    assert!(read > CASES / 100 && refused > CASES / 10, "{read} {refused}");
}
