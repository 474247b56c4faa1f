//! One setting: its name, what it means, what may be written for it; and the check of a value.

use std::{fmt, str::FromStr};

use toml::Value;

use super::SettingsError;
use crate::named::UnknownName;

/// Where a value was written, for messages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// A configuration file.
    File(String),
    /// A `--set section.name=value`.
    Set,
    /// A flag of its own, such as `--steps`.
    Flag(&'static str),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => f.write_str(path),
            Self::Set => f.write_str("--set"),
            Self::Flag(flag) => f.write_str(flag),
        }
    }
}

/// One setting. All of them are listed by [`super::keys`]: messages, comments in files and the documentation are made
/// from that list, which is made from the fields' documentation.
#[derive(Debug, Clone)]
pub struct Key {
    /// `section.name`.
    pub name: String,
    /// What it means.
    pub doc: String,
    /// What may be written for it.
    pub allowed: Allowed,
}

/// What may be written for a setting.
#[derive(Debug, Clone, Copy)]
pub enum Allowed {
    /// `true` or `false`.
    Switch,
    /// A whole number between two others, both included.
    Whole(i64, i64),
    /// A number in a range.
    Number(Range),
    /// Any text.
    Text,
    /// One of a list of names.
    Name(NameOf),
    /// Names of one list, in any number.
    Names(NameOf),
    /// Whole numbers between two others, at least one of them.
    Wholes(i64, i64),
    /// 0 (as the data are), one number for a square, or `[height, width]`.
    Size(i64),
}

/// Turns what was typed into the name that is printed.
pub type NameOf = fn(&str) -> Result<String, UnknownName>;

/// The [`NameOf`] of an enumeration.
///
/// # Errors
/// The enumeration's own [`UnknownName`].
pub(super) fn name_of<T: FromStr<Err = UnknownName> + fmt::Display>(text: &str) -> Result<String, UnknownName> {
    text.parse::<T>().map(|known| known.to_string())
}

/// A range of numbers whose ends may or may not belong to it.
#[derive(Debug, Clone, Copy)]
pub struct Range {
    /// The least number.
    pub min: f64,
    /// The greatest number.
    pub max: f64,
    /// Whether `min` itself is left out.
    pub above: bool,
    /// Whether `max` itself is left out.
    pub below: bool,
}

impl Range {
    /// From `min` to `max`, both included.
    pub fn closed(min: f64, max: f64) -> Self {
        Self { min, max, above: false, below: false }
    }

    /// Above `min`, at most `max`.
    pub fn above(min: f64, max: f64) -> Self {
        Self { above: true, ..Self::closed(min, max) }
    }

    /// At least `min`, below `max`.
    pub fn below(min: f64, max: f64) -> Self {
        Self { below: true, ..Self::closed(min, max) }
    }

    /// Between `min` and `max`, neither included.
    pub fn open(min: f64, max: f64) -> Self {
        Self { min, max, above: true, below: true }
    }

    fn contains(self, x: f64) -> bool {
        (x > self.min || (x == self.min && !self.above)) && (x < self.max || (x == self.max && !self.below))
    }
}

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.above { "above " } else { "at least " })?;
        number(f, self.min)?;
        f.write_str(if self.below { " and below " } else { " and at most " })?;
        number(f, self.max)
    }
}

fn number(f: &mut fmt::Formatter<'_>, x: f64) -> fmt::Result {
    if x != 0.0 && (x.abs() < 1e-3 || x.abs() >= 1e6) { write!(f, "{x:e}") } else { write!(f, "{x}") }
}

impl fmt::Display for Allowed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Switch => f.write_str("true or false"),
            Self::Whole(min, max) => write!(f, "a whole number from {min} to {max}"),
            Self::Number(range) => write!(f, "a number {range}"),
            Self::Text => f.write_str("text"),
            Self::Name(name_of) => f.write_str(&known(*name_of).join(", ")),
            Self::Names(name_of) => write!(f, "a list of {}", known(*name_of).join(", ")),
            Self::Wholes(min, max) => write!(f, "a list of whole numbers from {min} to {max}"),
            Self::Size(max) => {
                write!(f, "0 (as the data are), a side of 1 to {max} pixels, or a pair [height, width]")
            }
        }
    }
}

/// All names of a list, as its error tells them.
fn known(name_of: NameOf) -> Vec<&'static str> {
    name_of("").err().map(|unknown| unknown.known).unwrap_or_default()
}

impl Key {
    /// The section's name.
    pub fn section(&self) -> &str {
        self.name.split('.').next().unwrap_or_default()
    }

    /// Brings a value into the form that is stored: names as they are printed, whole numbers for numbers.
    ///
    /// # Errors
    /// [`SettingsError::NotAllowed`], with what is allowed.
    pub fn check(&self, value: &Value, origin: &Origin) -> Result<Value, SettingsError> {
        let refuse = |value: &Value, nearest: Option<String>| SettingsError::NotAllowed {
            key: self.name.clone(),
            value: value.to_string(),
            allowed: self.allowed.to_string(),
            nearest,
            origin: origin.clone(),
        };
        let checked = match (self.allowed, value) {
            (Allowed::Switch, Value::Boolean(_)) | (Allowed::Text, Value::String(_)) => Some(value.clone()),
            (Allowed::Whole(min, max), v) => whole(v, min, max).map(Value::Integer),
            (Allowed::Number(range), v) => number_of(v).filter(|x| range.contains(*x)).map(Value::Float),
            (Allowed::Wholes(min, max), Value::Array(list)) if !list.is_empty() => {
                list.iter().map(|v| whole(v, min, max).map(Value::Integer)).collect::<Option<_>>().map(Value::Array)
            }
            (Allowed::Size(max), Value::Array(pair)) if pair.len() == 2 => {
                pair.iter().map(|v| whole(v, 1, max).map(Value::Integer)).collect::<Option<_>>().map(Value::Array)
            }
            (Allowed::Size(max), v) => whole(v, 0, max).map(Value::Integer),
            (Allowed::Name(name_of), Value::String(name)) => {
                return self.check_name(name, name_of, origin).map(Value::String);
            }
            (Allowed::Names(name_of), Value::Array(list)) => {
                return list
                    .iter()
                    .map(|v| match v {
                        Value::String(name) => self.check_name(name, name_of, origin).map(Value::String),
                        other => Err(refuse(other, None)),
                    })
                    .collect::<Result<_, _>>()
                    .map(Value::Array);
            }
            _ => None,
        };
        checked.ok_or_else(|| refuse(value, None))
    }

    fn check_name(&self, name: &str, name_of: NameOf, origin: &Origin) -> Result<String, SettingsError> {
        name_of(name).map_err(|unknown| {
            let (key, value, allowed) = (self.name.clone(), format!("\"{name}\""), self.allowed.to_string());
            let nearest = unknown.nearest().map(str::to_owned);
            SettingsError::NotAllowed { key, value, allowed, nearest, origin: origin.clone() }
        })
    }

    /// Reads what stands behind the `=` of a `--set`: TOML, or the bare text where the setting takes text or a name,
    /// or the list without its brackets.
    pub fn parse(&self, text: &str) -> Value {
        let text = text.trim();
        let toml = |text: &str| format!("x = {text}").parse::<toml::Table>().ok().and_then(|mut t| t.remove("x"));
        let list = |text: &str| toml(&format!("[{text}]"));
        let bare = || Value::String(text.to_owned());
        match self.allowed {
            Allowed::Text | Allowed::Name(_) => match toml(text) {
                Some(Value::String(quoted)) => Value::String(quoted),
                _ => bare(),
            },
            Allowed::Names(_) if !text.starts_with('[') => {
                Value::Array(text.split(',').map(|name| Value::String(name.trim().to_owned())).collect())
            }
            Allowed::Wholes(..) if !text.starts_with('[') => list(text).unwrap_or_else(bare),
            Allowed::Size(_) if text.contains(',') && !text.starts_with('[') => list(text).unwrap_or_else(bare),
            _ => toml(text).unwrap_or_else(bare),
        }
    }
}

fn whole(value: &Value, min: i64, max: i64) -> Option<i64> {
    let n = match value {
        Value::Integer(n) => *n,
        // 1e5 is a whole number to whoever types it.
        Value::Float(x) if x.fract() == 0.0 && x.abs() < 9e15 => *x as i64,
        _ => return None,
    };
    (min..=max).contains(&n).then_some(n)
}

fn number_of(value: &Value) -> Option<f64> {
    match value {
        Value::Integer(n) => Some(*n as f64),
        Value::Float(x) => Some(*x),
        _ => None,
    }
}

/// Declares a section: a struct, its defaults, and the [`Key`] of every field, whose meaning is the field's own
/// documentation. One list serves the type, the file's comments, the checks and the answers to unknown keys.
macro_rules! section {
    (
        $(#[doc = $about:literal])+
        $name:ident: $section:literal {
            $( $(#[doc = $doc:literal])+ $field:ident: $type:ty = $default:expr, $allowed:expr; )+
        }
    ) => {
        $(#[doc = $about])+
        #[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
        #[serde(deny_unknown_fields)]
        pub struct $name {
            $( $(#[doc = $doc])+ pub $field: $type, )+
        }

        impl Default for $name {
            fn default() -> Self {
                Self { $( $field: $default, )+ }
            }
        }

        impl $name {
            /// The keys of this section, in the order of the fields.
            pub(crate) fn keys() -> Vec<$crate::settings::Key> {
                vec![$( $crate::settings::Key {
                    name: concat!($section, ".", stringify!($field)).to_owned(),
                    doc: [$($doc.trim()),+].join(" "),
                    allowed: $allowed,
                } ),+]
            }
        }
    };
}
pub(crate) use section;
