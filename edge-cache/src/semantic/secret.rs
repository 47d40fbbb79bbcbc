//! Whether a text has a secret, or what tells who somebody is. Pure, in time linear in the text.
//!
//! No such text may be looked up or stored where another's question finds it. When unsure it has one:
//! that costs a hit. What a person would not call a secret stays: a short commit id, a long
//! identifier, an address of `example.com`.

/// Beginnings of keys, and how much must follow at least.
const KEYS: [(&str, usize); 34] = [
    ("sk-", 16),
    ("sk_live_", 10),
    ("sk_test_", 10),
    ("rk_live_", 10),
    ("pk_live_", 10),
    ("whsec_", 10),
    ("ghp_", 16),
    ("gho_", 16),
    ("ghu_", 16),
    ("ghs_", 16),
    ("ghr_", 16),
    ("github_pat_", 16),
    ("glpat-", 12),
    ("gldt-", 12),
    ("AKIA", 12),
    ("ASIA", 12),
    ("xoxb-", 8),
    ("xoxp-", 8),
    ("xoxa-", 8),
    ("xoxr-", 8),
    ("xoxs-", 8),
    ("xapp-", 8),
    ("AIza", 30),
    ("ya29.", 16),
    ("npm_", 20),
    ("pypi-", 20),
    ("hf_", 20),
    ("SG.", 20),
    ("dop_v1_", 20),
    ("shpat_", 16),
    ("sq0atp-", 12),
    ("AGE-SECRET-KEY-", 12),
    ("lin_api_", 16),
    ("r8_", 24),
];

/// Names of what is secret, as they end.
const SECRETS: [&str; 13] = [
    "password",
    "passwd",
    "passphrase",
    "pwd",
    "secret",
    "token",
    "apikey",
    "api_key",
    "api-key",
    "access_key",
    "accesskey",
    "private_key",
    "credential",
];

/// How far from its name a secret is looked for.
const VALUE: usize = 128;

/// Whether `text` has a secret or personal data.
#[must_use]
pub(crate) fn has_secret(text: &str) -> bool {
    (text.contains("-----BEGIN ") && text.contains("PRIVATE KEY"))
        || has_assignment(text)
        || has_number(text)
        || text.split(is_gap).any(is_secret_word)
        || has_iban(text)
}

/// What no key has in it.
fn is_gap(c: char) -> bool {
    c.is_whitespace()
        || matches!(
            c,
            '"' | '\''
                | '`'
                | '“'
                | '”'
                | '‘'
                | '’'
                | '<'
                | '>'
                | '('
                | ')'
                | '['
                | ']'
                | '{'
                | '}'
                | ','
                | ';'
                | '|'
        )
}

fn is_secret_word(word: &str) -> bool {
    if word.len() < 6 {
        return false;
    }
    word.split(['=', ':', '&', '?']).any(|part| is_key(part) || is_random(part))
        || is_token(word)
        || is_mail(word)
        || has_login(word)
}

fn is_key(word: &str) -> bool {
    KEYS.iter().any(|(start, length)| {
        word.strip_prefix(start).is_some_and(|rest| {
            let key = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
            rest.len() >= *length && rest.bytes().all(key) && varied(rest)
        })
    })
}

/// Whether it has digits, or both cases: words have not.
fn varied(text: &str) -> bool {
    let has = |test: fn(&u8) -> bool| text.bytes().any(|byte| test(&byte));
    has(u8::is_ascii_digit) || (has(u8::is_ascii_uppercase) && has(u8::is_ascii_lowercase))
}

/// A JSON web token.
fn is_token(word: &str) -> bool {
    word.find("eyJ").is_some_and(|at| {
        let token = &word[at..];
        token.len() >= 30 && token.contains('.') && varied(token)
    })
}

/// `somebody@somewhere.com`, except where nobody lives.
fn is_mail(word: &str) -> bool {
    let word = word.trim_end_matches(['.', '?', '!', ':']);
    let word = word.strip_prefix("mailto:").unwrap_or(word);
    let Some((user, host)) = word.rsplit_once('@') else { return false };
    let user_ok = |byte: u8| byte.is_ascii_alphanumeric() || b"._%+-".contains(&byte);
    let user = user.rsplit([':', '=', '/']).next().unwrap_or(user);
    let Some((domain, top)) = host.rsplit_once('.') else { return false };
    let nobody = user == "git"
        || ["example", "test", "invalid", "localhost"]
            .iter()
            .any(|name| domain == *name || domain.ends_with(&format!(".{name}")) || top == *name);
    !nobody
        && !user.is_empty()
        && user.bytes().all(user_ok)
        && !domain.is_empty()
        && domain.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-".contains(&byte))
        && top.len() >= 2
        && top.bytes().all(|byte| byte.is_ascii_alphabetic())
}

/// `scheme://user:password@host`.
fn has_login(word: &str) -> bool {
    let Some((_, rest)) = word.split_once("://") else { return false };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or(rest);
    let login = authority.rsplit_once('@').and_then(|(login, _)| login.split_once(':'));
    login.is_some_and(|(_, password)| !password.is_empty() && !is_placeholder(password))
}

/// A long run of hexadecimal digits, or of letters and digits in no order that a name would have.
fn is_random(word: &str) -> bool {
    is_uuid(word)
        || word.split(['/', '.', '\\', '-', '_', '+', '~', '@', '#', '*', '%']).any(is_random_run)
}

fn is_random_run(run: &str) -> bool {
    if run.len() < 20 || !run.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
        return false;
    }
    let bytes = run.as_bytes();
    let digits = run.bytes().filter(u8::is_ascii_digit).count();
    let letters = run.len() - digits;
    if run.len() >= 32 && run.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return digits >= 4 && letters >= 4;
    }
    // Names change their sort of character at words; noise does at every other.
    let sort = |byte: u8| (byte.is_ascii_digit(), byte.is_ascii_uppercase());
    let changes = bytes.windows(2).filter(|pair| sort(pair[0]) != sort(pair[1])).count();
    digits >= 2 && letters >= 6 && changes * 5 >= run.len() * 2
}

fn is_uuid(word: &str) -> bool {
    let lengths = word.split('-').map(str::len);
    let hex = |byte: u8| byte.is_ascii_hexdigit() || byte == b'-';
    let mut seen = [false; 128];
    word.bytes().filter(u8::is_ascii).for_each(|byte| seen[usize::from(byte)] = true);
    // The nil one, and those of examples, have few digits.
    word.len() == 36
        && word.bytes().all(hex)
        && lengths.eq([8, 4, 4, 4, 12])
        && seen.iter().filter(|seen| **seen).count() > 7
}

/// `password = …`, `"token": "…"`, `my password is …`.
fn has_assignment(text: &str) -> bool {
    let lower = text.to_ascii_lowercase();
    SECRETS.iter().any(|name| {
        lower.match_indices(name).any(|(at, _)| {
            let rest = &text[at + name.len()..];
            let rest = rest.strip_prefix(['s', 'S']).unwrap_or(rest);
            // A value is near its name; so the time stays linear.
            is_assigned(&rest[..rest.floor_char_boundary(VALUE)])
        })
    })
}

/// Whether a value follows the name of a secret.
fn is_assigned(rest: &str) -> bool {
    let quoted = rest.trim_start_matches(['"', '\'', '`', ']', ' ', '\t']);
    let is = quoted
        .strip_prefix("is ")
        .or_else(|| quoted.strip_prefix("was "))
        .filter(|_| rest.starts_with(' '));
    let (value, plain) = if let Some(value) = is {
        (value, false)
    } else if let Some(value) = quoted.strip_prefix('=') {
        (value.trim_start_matches(['=', '>']), !quoted.starts_with("=="))
    } else if let Some(value) = quoted.strip_prefix(':') {
        let value = value.strip_prefix('=').unwrap_or(value);
        (value, value.trim_start().starts_with(['"', '\'']))
    } else {
        return false;
    };
    let value = value.trim_start().trim_start_matches(['"', '\'', '`']);
    let value = value.split(is_gap).next().unwrap_or(value).trim_end_matches(['.', '?', '!', ',']);
    let called = value.contains(['(', '.']) || text_after(rest, value).starts_with('(');
    let odd = value.bytes().any(|byte| !byte.is_ascii_alphabetic());
    value.len() >= 4 && !is_placeholder(value) && !called && (plain || odd)
}

/// What follows `part`, which is a piece of `text`.
fn text_after<'t>(text: &'t str, part: &str) -> &'t str {
    text.find(part).map_or("", |at| &text[at + part.len()..])
}

/// Whether a value stands for another.
fn is_placeholder(value: &str) -> bool {
    const PLACEHOLDERS: [&str; 22] = [
        "none",
        "null",
        "nil",
        "true",
        "false",
        "undefined",
        "password",
        "passwd",
        "pass",
        "secret",
        "token",
        "string",
        "value",
        "required",
        "changeme",
        "example",
        "self",
        "this",
        "pass123",
        "input",
        "self.password",
        "your",
    ];
    let lower = value.to_ascii_lowercase();
    let first = lower.chars().next();
    value.starts_with(['$', '%', '@', '*', '{', '<', '&', '='])
        || PLACEHOLDERS.contains(&&*lower)
        || lower.starts_with("your")
        || lower.starts_with("my_")
        || lower.chars().all(|c| Some(c) == first)
}

/// A card's number, or a telephone's.
fn has_number(text: &str) -> bool {
    let bytes = text.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        if !bytes[at].is_ascii_digit() {
            at += 1;
            continue;
        }
        let start = at;
        let mut digits: Vec<u8> = Vec::new();
        let mut end = at;
        // Groups with one separator between them.
        while at < bytes.len() {
            if bytes[at].is_ascii_digit() {
                digits.push(bytes[at] - b'0');
                end = at + 1;
            } else if !matches!(bytes[at], b' ' | b'-' | b'(' | b')' | b'.' | b'/') || at - end >= 2
            {
                break;
            }
            at += 1;
        }
        let before = |back: usize| start.checked_sub(back).map(|at| bytes[at]);
        let outside = |byte: Option<u8>| {
            byte.is_none_or(|byte| !byte.is_ascii_alphanumeric() && byte != b'+')
        };
        let phone = (before(1) == Some(b'+') && outside(before(2)))
            || (before(1) == Some(b'(') && before(2) == Some(b'+'));
        if phone && (9..=15).contains(&digits.len()) {
            return true;
        }
        let dotted = bytes[start..end].iter().any(|byte| matches!(byte, b'.' | b'/' | b'(' | b')'));
        if outside(before(1)) && !dotted && is_card(&digits) {
            return true;
        }
    }
    false
}

/// Whether these could be a card's digits: the last one checks them.
fn is_card(digits: &[u8]) -> bool {
    let sum: u32 = digits
        .iter()
        .rev()
        .enumerate()
        .map(|(at, digit)| {
            let doubled = u32::from(*digit) * (1 + u32::from(at % 2 == 1));
            if doubled > 9 { doubled - 9 } else { doubled }
        })
        .sum();
    let varied = digits.iter().any(|digit| Some(digit) != digits.first());
    (13..=19).contains(&digits.len())
        && matches!(digits[0], 2..=6)
        && varied
        && sum.is_multiple_of(10)
}

/// A bank account's number: its second pair checks it.
fn has_iban(text: &str) -> bool {
    const LONGEST: usize = 34;
    let bytes = text.as_bytes();
    (0..bytes.len()).any(|at| {
        let starts = at == 0 || !bytes[at - 1].is_ascii_alphanumeric();
        let head = bytes.get(at..at + 4).unwrap_or_default();
        let is_head = head.len() == 4
            && head[..2].iter().all(u8::is_ascii_uppercase)
            && head[2..].iter().all(u8::is_ascii_digit);
        if !starts || !is_head {
            return false;
        }
        let rest = bytes[at..].iter().take(LONGEST + LONGEST / 4);
        let number: Vec<u8> = rest
            .take_while(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit() || **byte == b' ')
            .filter(|byte| **byte != b' ')
            .copied()
            .take(LONGEST)
            .collect();
        // What follows it might be read as a part of it.
        (15..=number.len()).any(|length| is_iban(&number[..length]))
    })
}

fn is_iban(number: &[u8]) -> bool {
    let turned = number[4..].iter().chain(&number[..4]);
    let rest = turned.fold(0u32, |rest, byte| {
        if byte.is_ascii_digit() {
            (rest * 10 + u32::from(byte - b'0')) % 97
        } else {
            (rest * 100 + u32::from(byte - b'A') + 10) % 97
        }
    });
    rest == 1 && number[4..].iter().filter(|byte| byte.is_ascii_digit()).count() >= 8
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn secrets_are_seen() {
        for text in [
            "why is sk-proj4f9aB2kd83nfK29xQ rejected?",
            "use ghp_16C7e42F292c6912E7710c838347Ae178B4a",
            "key AKIAIOSFODNN7EXAMPLE fails",
            "slack xoxb-123456789012-abcdef",
            "google AIzaSyA1234567890abcdefghijklmnopqrstuv",
            "glpat-x9Yk2mNq7Rt4Vw8Z is my token",
            "Bearer eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.abc",
            "-----BEGIN RSA PRIVATE KEY----- what is it",
            "password=hunter2 does not work",
            "set PASSWORD = 'correct'",
            "DB_PASSWORD: s3cr3t! in compose",
            "{\"token\": \"abcdef\"}",
            "my password is hunter2",
            "passwd: x7!kk",
            "api_key=abcdef12",
            "postgres://bob:letmein@db.internal/x",
            "d41d8cd98f00b204e9800998ecf8427e is what?",
            "what is 8f14e45f-ceea-467f-a8a1-3c5b2d9e7f60",
            "token q8Zr3Lx0Vb7Ns2Kd9Wf4Hj6T",
            "card 4111 1111 1111 1111 is declined",
            "card 5500-0000-0000-0004",
            "mail bob.smith@acme.com please",
            "<bob@acme.co.uk>?",
            "call +49 170 1234567 now",
            "call +1 (415) 555-2671",
            "pay to DE89 3704 0044 0532 0130 00 please",
            "GB82WEST12345698765432",
        ] {
            assert!(has_secret(text), "{text}");
        }
    }

    #[test]
    fn what_is_no_secret_is_not() {
        for text in [
            "How do I revert commit a1b2c3d4e5f6?",
            "What does git show 9fceb02 do?",
            "What is getElementsByClassName?",
            "Explain AbstractSingletonProxyFactoryBean in Spring",
            "How do I hash a password in Python?",
            "password: how do I hash it?",
            "Is the token valid when token == null?",
            "password = input() in Python",
            "password=$DB_PASSWORD in bash",
            "set token=<your token> where?",
            "What is a secret in Kubernetes?",
            "see https://docs.rs/serde/latest/serde/",
            "00000000-0000-0000-0000-000000000000",
            "git clone git@github.com:rust-lang/rust.git",
            "validate an e-mail like user@example.com",
            "npm install @types/node@20.1.0",
            "the @property decorator",
            "1 + 2 + 3 = 6",
            "UTC+02:00 to UTC",
            "C++17 or C++20",
            "sort 10000000 numbers below 99999999",
            "2023-04-05 10:30:00",
            "192.168.178.100 and 255.255.255.0",
            "error 0x80070057 in Windows",
            "sk-learn or sk-lab",
            "task-force-of-many-people-here",
            "ISO 8601 and RFC 3339",
            "x86_64-unknown-linux-gnu",
            "why is AWS_SECRET_ACCESS_KEY read first?",
            "what is the maximum of 9007199254740991?",
            "how is my token is parsed",
        ] {
            assert!(!has_secret(text), "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_judged(text in "\\PC*") {
            let _ = has_secret(&text);
        }

        #[test]
        fn a_key_is_seen_wherever_it_stands(before in "[a-z ]{0,40}", after in "[a-z ]{0,40}") {
            let text = format!("{before} ghp_16C7e42F292c6912E7710c838347Ae178B4a {after}");
            prop_assert!(has_secret(&text));
        }
    }
}
