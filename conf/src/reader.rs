//! Reads a YAML tree field by field and remembers every mistake on the way.
//!
//! Serde stops at the first mistake; an operator wants all of them. A [`Section`] hands out typed
//! fields, falls back to the default after a mistake so that reading goes on, and on
//! [`Section::finish`] names every field it was never asked for.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    num::NonZeroUsize,
    path::PathBuf,
    time::Duration,
};

use ipnet::IpNet;
use serde_json::{Map, Value};

use crate::{
    Algorithm, AllDown, ByteSize, ConfigError, L3Mode, L3Scope, LogFormat, Problem, Protocol,
    Provider, RequestKind, ReuseRule, Scope, Secret, TlsVersion,
    shape::{Form, Shape, Shapes},
    source::Env,
    units,
};

/// The mistakes found so far; or, where a file is only described, what was asked for.
#[derive(Default)]
pub(crate) struct Problems {
    found: RefCell<Vec<Problem>>,
    /// Fields whose text is not known: nothing else is said of them.
    unread: RefCell<BTreeSet<String>>,
    /// Set while there is no file: every section is there, and every question is written down.
    shapes: Option<RefCell<Shapes>>,
}

impl Problems {
    /// For a walk that describes.
    pub(crate) fn describing() -> Self {
        Self { shapes: Some(RefCell::default()), ..Self::default() }
    }

    pub(crate) fn into_shapes(self) -> Shapes {
        self.shapes.map(RefCell::into_inner).unwrap_or_default()
    }

    fn asked(&self, path: impl FnOnce() -> String, shape: impl FnOnce() -> Shape) {
        if let Some(shapes) = &self.shapes {
            shapes.borrow_mut().insert(path(), shape());
        }
    }

    pub(crate) fn add(&self, path: &str, what: impl Into<String>, fix: impl Into<String>) {
        if !self.unread.borrow().contains(path) {
            self.push(path, what, fix);
        }
    }

    /// A field whose text is not known.
    fn unread(&self, path: &str, what: impl Into<String>, fix: impl Into<String>) {
        self.push(path, what, fix);
        self.unread.borrow_mut().insert(path.to_owned());
    }

    fn push(&self, path: &str, what: impl Into<String>, fix: impl Into<String>) {
        self.found.borrow_mut().push(Problem {
            path: path.to_owned(),
            what: what.into(),
            fix: fix.into(),
        });
    }

    pub(crate) fn into_list(self) -> Vec<Problem> {
        self.found.into_inner()
    }
}

/// A value that one YAML scalar can hold.
pub(crate) trait Field: Sized {
    /// What to write, for the mistake's text: `a duration such as 5s or 800ms`.
    const EXPECTED: &'static str;
    /// Whether it is one of what is expected, or several.
    const FORM: Form = Form::One;
    /// Whether it must not be printed, whatever was written.
    const SECRET: bool = false;
    /// The words that it may be, where it is one of a few.
    fn words() -> Vec<&'static str> {
        Vec::new()
    }
    fn parse(value: &Value) -> Option<Self>;
}

impl Field for String {
    const EXPECTED: &'static str =
        "text of 1 to 256 characters, in quotes where it looks like a number";
    fn parse(value: &Value) -> Option<Self> {
        let text = value.as_str()?;
        (1..=256).contains(&text.len()).then(|| text.to_owned())
    }
}

/// Tokens of identity providers are longer than names.
const SECRET_LENGTH_MAX: usize = 4096;

impl Field for Secret {
    const EXPECTED: &'static str =
        "text of 1 to 4096 characters, in quotes where it looks like a number";
    const SECRET: bool = true;
    fn parse(value: &Value) -> Option<Self> {
        let text = value.as_str()?;
        (1..=SECRET_LENGTH_MAX).contains(&text.len()).then(|| Self(text.to_owned()))
    }
}

impl Field for PathBuf {
    const EXPECTED: &'static str = "a path";
    fn parse(value: &Value) -> Option<Self> {
        value.as_str().filter(|text| !text.is_empty()).map(Self::from)
    }
}

impl Field for SocketAddr {
    const EXPECTED: &'static str = "an IP address and a port such as 127.0.0.1:8080 or [::1]:8080";
    fn parse(value: &Value) -> Option<Self> {
        value.as_str()?.parse().ok()
    }
}

impl Field for Duration {
    const EXPECTED: &'static str = "a duration over zero such as 800ms, 5s or 10m";
    fn parse(value: &Value) -> Option<Self> {
        units::duration(value.as_str()?).filter(|duration| !duration.is_zero())
    }
}

impl Field for ByteSize {
    const EXPECTED: &'static str = "a size such as 64KiB or 256MiB";
    fn parse(value: &Value) -> Option<Self> {
        units::byte_size(value.as_str()?)
    }
}

impl Field for NonZeroUsize {
    const EXPECTED: &'static str = "a whole number from 1 to 65536";
    fn parse(value: &Value) -> Option<Self> {
        let number = usize::try_from(value.as_u64()?).ok().filter(|number| *number <= 65_536)?;
        Self::new(number)
    }
}

impl Field for bool {
    const EXPECTED: &'static str = "true or false";
    fn parse(value: &Value) -> Option<Self> {
        value.as_bool()
    }
}

impl Field for u64 {
    const EXPECTED: &'static str = "a whole number of at least 1";
    fn parse(value: &Value) -> Option<Self> {
        value.as_u64().filter(|number| *number > 0)
    }
}

/// A share of something.
impl Field for f64 {
    const EXPECTED: &'static str = "a number from 0 to 1";
    fn parse(value: &Value) -> Option<Self> {
        value.as_f64().filter(|number| (0.0..=1.0).contains(number))
    }
}

impl Field for IpAddr {
    const EXPECTED: &'static str = "an IP address such as 192.0.2.1 or 2001:db8::1";
    fn parse(value: &Value) -> Option<Self> {
        value.as_str()?.parse().ok()
    }
}

impl Field for IpNet {
    const EXPECTED: &'static str = "an address or a network such as 10.0.0.0/8";
    fn parse(value: &Value) -> Option<Self> {
        let text = value.as_str()?;
        text.parse().ok().or_else(|| text.parse::<IpAddr>().ok().map(Self::from))
    }
}

fn shape<T: Field>(required: bool) -> Shape {
    Shape { expected: T::EXPECTED, form: T::FORM, words: T::words(), required }
}

/// Several, in the file as a list.
impl<T: Field> Field for Vec<T> {
    const EXPECTED: &'static str = T::EXPECTED;
    const FORM: Form = Form::List;
    const SECRET: bool = T::SECRET;
    fn words() -> Vec<&'static str> {
        T::words()
    }
    fn parse(value: &Value) -> Option<Self> {
        let items = value.as_array().filter(|items| items.len() <= LIST_MAX)?;
        items.iter().map(T::parse).collect()
    }
}

/// Several, each under a name that the operator chooses.
impl<T: Field> Field for BTreeMap<String, T> {
    const EXPECTED: &'static str = T::EXPECTED;
    const FORM: Form = Form::Map;
    const SECRET: bool = T::SECRET;
    fn words() -> Vec<&'static str> {
        T::words()
    }
    fn parse(value: &Value) -> Option<Self> {
        let fields = value.as_object().filter(|fields| fields.len() <= LIST_MAX)?;
        fields.iter().map(|(name, value)| Some((name.clone(), T::parse(value)?))).collect()
    }
}

/// A list in a configuration file is written by hand.
pub(crate) const LIST_MAX: usize = 1024;

/// A closed set of words.
pub(crate) trait Word: Sized + Copy + 'static {
    /// What to write for each.
    const WORDS: &'static [(&'static str, Self)];
    /// The words, for the mistake's text.
    const EXPECTED: &'static str;
}

macro_rules! words {
    ($($kind:ty: $expected:literal, { $($word:literal => $value:expr),+ $(,)? })+) => {$(
        impl Word for $kind {
            const WORDS: &'static [(&'static str, Self)] = &[$(($word, $value)),+];
            const EXPECTED: &'static str = $expected;
        }

        impl Field for $kind {
            const EXPECTED: &'static str = <Self as Word>::EXPECTED;
            fn words() -> Vec<&'static str> {
                Self::WORDS.iter().map(|(word, _)| *word).collect()
            }
            fn parse(value: &Value) -> Option<Self> {
                let text = value.as_str()?;
                Self::WORDS.iter().find(|(word, _)| *word == text).map(|(_, value)| *value)
            }
        }
    )+};
}

words! {
    Protocol: "http1 or h2", { "http1" => Self::Http1, "h2" => Self::H2 }
    Provider: "tensorrt, cuda or cpu", {
        "tensorrt" => Self::TensorRt, "cuda" => Self::Cuda, "cpu" => Self::Cpu,
    }
    TlsVersion: "\"1.2\" or \"1.3\", in quotes", { "1.2" => Self::V1_2, "1.3" => Self::V1_3 }
    AllDown: "nearest, nodata or fallback", {
        "nearest" => Self::Nearest, "nodata" => Self::NoData, "fallback" => Self::Fallback,
    }
    ReuseRule: "exact, type_ahead, window or normalised", {
        "exact" => Self::Exact, "type_ahead" => Self::TypeAhead, "window" => Self::Window,
        "normalised" => Self::Normalised,
    }
    L3Mode: "off, shadow or serve", {
        "off" => Self::Off, "shadow" => Self::Shadow, "serve" => Self::Serve,
    }
    L3Scope: "key, user or tenant", {
        "key" => Self::Key, "user" => Self::User, "tenant" => Self::Tenant,
    }
    RequestKind: "inline, fim, chat or agent", {
        "inline" => Self::Inline, "fim" => Self::Fim, "chat" => Self::Chat, "agent" => Self::Agent,
    }
    LogFormat: "text or json", { "text" => Self::Text, "json" => Self::Json }
    Scope: "completions or chat", { "completions" => Self::Completions, "chat" => Self::Chat }
    Algorithm: "RS256, PS256, ES256 or EdDSA", {
        "RS256" => Self::Rs256, "PS256" => Self::Ps256, "ES256" => Self::Es256, "EdDSA" => Self::EdDsa,
    }
}

/// One mapping of the file, at `path`.
pub(crate) struct Section<'a> {
    path: String,
    fields: Map<String, Value>,
    asked: Vec<&'static str>,
    problems: &'a Problems,
}

impl<'a> Section<'a> {
    pub(crate) fn root(value: Value, problems: &'a Problems) -> Self {
        Self::new(String::new(), value, problems)
    }

    fn new(path: String, value: Value, problems: &'a Problems) -> Self {
        let fields = match value {
            Value::Object(fields) => fields,
            Value::Null => Map::new(),
            _ => {
                problems.add(&path, "is not a mapping", "Write its fields below it, indented");
                Map::new()
            }
        };
        Self { path, fields, asked: Vec::new(), problems }
    }

    /// The full path of a field of this section.
    pub(crate) fn path_of(&self, name: &str) -> String {
        if self.path.is_empty() { name.to_owned() } else { format!("{}.{name}", self.path) }
    }

    pub(crate) fn problem(&self, name: &str, what: impl Into<String>, fix: impl Into<String>) {
        self.problems.add(&self.path_of(name), what, fix);
    }

    /// Whether the file has this field.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.problems.shapes.is_some() || self.fields.contains_key(name)
    }

    /// A field as it is written, which still has to be asked for.
    pub(crate) fn peek(&self, name: &str) -> Option<&Value> {
        self.fields.get(name)
    }

    fn take(&mut self, name: &'static str) -> Option<Value> {
        self.asked.push(name);
        self.fields.remove(name)
    }

    /// A field that may be left out.
    pub(crate) fn optional<T: Field>(&mut self, name: &'static str) -> Option<T> {
        self.problems.asked(|| self.path_of(name), || shape::<T>(false));
        let value = self.take(name)?;
        let parsed = T::parse(&value);
        if parsed.is_none() {
            let form = match T::FORM {
                Form::One => "",
                Form::List => "a list, each item ",
                Form::Map => "a mapping, each value ",
            };
            let what = match &value {
                Value::String(text) if T::SECRET => {
                    format!("a text of {} characters does not fit", text.chars().count())
                }
                _ if T::SECRET => "what is written there does not fit".to_owned(),
                value => format!("{value} does not fit"),
            };
            self.problem(name, what, format!("Write {form}{}", T::EXPECTED));
        }
        parsed
    }

    /// A field with a default.
    pub(crate) fn or<T: Field>(&mut self, name: &'static str, default: T) -> T {
        self.optional(name).unwrap_or(default)
    }

    /// A field that must be there.
    pub(crate) fn required<T: Field>(&mut self, name: &'static str) -> Option<T> {
        self.problems.asked(|| self.path_of(name), || shape::<T>(true));
        if !self.has(name) {
            self.asked.push(name);
            self.problem(name, "is missing", format!("Add it: {}", T::EXPECTED));
            return None;
        }
        self.optional(name)
    }

    /// A mapping below this one; empty where the file has none, so that its defaults apply.
    pub(crate) fn section(&mut self, name: &'static str) -> Self {
        let value = self.take(name).unwrap_or(Value::Null);
        Section::new(self.path_of(name), value, self.problems)
    }

    /// A list of mappings.
    pub(crate) fn sections(&mut self, name: &'static str) -> Vec<Self> {
        let path = self.path_of(name);
        if self.problems.shapes.is_some() {
            return vec![Section::new(format!("{path}[]"), Value::Null, self.problems)];
        }
        match self.take(name) {
            None | Some(Value::Null) => Vec::new(),
            Some(Value::Array(items)) => items
                .into_iter()
                .enumerate()
                .map(|(at, item)| Section::new(format!("{path}[{at}]"), item, self.problems))
                .collect(),
            Some(_) => {
                self.problems.add(&path, "is not a list", "Start each item with `- `");
                Vec::new()
            }
        }
    }

    /// Names every field that was never asked for.
    pub(crate) fn finish(self) {
        for name in self.fields.keys() {
            let near = self.asked.iter().find(|known| edit_distance(known, name) <= 2);
            let fix = match near {
                Some(near) => format!("Did you mean `{near}`?"),
                None => format!("Known here: {}", self.asked.join(", ")),
            };
            self.problem(name, "is not a field of this section", fix);
        }
    }
}

/// Replaces `${NAME}` in every text of the tree; `$${` stands for a literal `${`.
pub(crate) fn expand(value: &mut Value, path: &str, env: Env<'_>, problems: &Problems) {
    match value {
        Value::String(text) if text.contains("${") => {
            *text = expand_text(text, path, env, problems);
        }
        Value::Array(items) => {
            for (at, item) in items.iter_mut().enumerate() {
                expand(item, &format!("{path}[{at}]"), env, problems);
            }
        }
        Value::Object(fields) => {
            for (name, field) in fields {
                let below = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                expand(field, &below, env, problems);
            }
        }
        _ => {}
    }
}

fn expand_text(text: &str, path: &str, env: Env<'_>, problems: &Problems) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("${") {
        if rest[..at].ends_with('$') {
            out.push_str(&rest[..at - 1]);
            out.push_str("${");
            rest = &rest[at + 2..];
            continue;
        }
        out.push_str(&rest[..at]);
        let Some(end) = rest[at..].find('}') else {
            problems.unread(path, "has `${` without `}`", "Close it, or write `$${` for the text");
            return out;
        };
        let name = &rest[at + 2..at + end];
        match env(name) {
            Some(value) => out.push_str(&value),
            None => problems.unread(
                path,
                format!("the environment variable {name} is not set"),
                format!("Set {name}, or write the value here"),
            ),
        }
        rest = &rest[at + end + 1..];
    }
    out.push_str(rest);
    out
}

/// Levenshtein distance in bytes; field names are short.
fn edit_distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.bytes().enumerate() {
            let change = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = change.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

/// A YAML text as a tree. A mistake is told with its line and column, and without the lines around
/// it, which may have secrets.
pub(crate) fn parse_yaml(text: &str, path: &str) -> Result<Value, ConfigError> {
    let options = serde_saphyr::options! { with_snippet: false };
    serde_saphyr::from_str_with_options(text, options)
        .map_err(|error| ConfigError::NotYaml { path: path.to_owned(), message: error.to_string() })
}

/// A secret written out as `name`, or as the text of the file that `file` names.
pub(crate) fn read_secret(
    section: &mut Section<'_>,
    name: &'static str,
    file: &'static str,
) -> Option<Secret> {
    let Secret(text) = read_given(section, name, file)?;
    if text.len() < 16 {
        section.problem(name, "is shorter than 16 characters", "Use `openssl rand -hex 32`");
        return None;
    }
    Some(Secret(text))
}

/// A secret that somebody else made, of whatever length.
pub(crate) fn read_given(
    section: &mut Section<'_>,
    name: &'static str,
    file: &'static str,
) -> Option<Secret> {
    let given: Option<Secret> = section.optional(name);
    let path: Option<PathBuf> = section.optional(file);
    let text = match (given, path) {
        (Some(_), Some(_)) => {
            section.problem(file, format!("stands beside `{name}`"), "Keep one of the two");
            return None;
        }
        (None, None) => return None,
        (Some(secret), None) => return Some(secret),
        (None, Some(path)) => match std::fs::read_to_string(&path) {
            Ok(text) => text.trim().to_owned(),
            Err(error) => {
                let what = format!("cannot read {}: {error}", path.display());
                section.problem(file, what, "Check the path and its permissions");
                return None;
            }
        },
    };
    Some(Secret(text))
}

/// A secret that is sent in an `Authorization` header, as somebody else made it.
pub(crate) fn read_bearer(
    section: &mut Section<'_>,
    name: &'static str,
    file: &'static str,
) -> Option<Secret> {
    let secret = read_given(section, name, file)?;
    let text = secret.reveal();
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        let fix = "Write it without spaces, and on one line";
        section.problem(name, "cannot be sent in a header", fix);
        return None;
    }
    Some(secret)
}

/// `Some(None)`: the section is in the file but could not be read.
#[expect(clippy::option_option, reason = "absent, unreadable and read are three states")]
pub(crate) fn flatten<T>(role: Option<Option<T>>) -> Option<Option<T>> {
    match role {
        None => Some(None),
        Some(None) => None,
        Some(Some(role)) => Some(Some(role)),
    }
}
