//! Enumerations that people type: each variant has one name that is printed and perhaps others that are
//! understood, and an unknown name is answered with the nearest known one.

use std::fmt;

/// A name that stands for nothing in its list.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct UnknownName {
    /// What was being named, such as "beta schedule".
    pub what: &'static str,
    /// The name that came.
    pub got: String,
    /// Every name that is printed (other accepted spellings are left out).
    pub known: Vec<&'static str>,
}

impl UnknownName {
    /// The known name most like the one that came, if any is like it.
    pub fn nearest(&self) -> Option<&'static str> {
        let got = self.got.to_lowercase();
        self.known
            .iter()
            .map(|&name| (strsim::jaro_winkler(&got, name), name))
            .filter(|&(likeness, _)| likeness > 0.7)
            .max_by(|a, b| a.0.total_cmp(&b.0))
            .map(|(_, name)| name)
    }
}

impl fmt::Display for UnknownName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "unknown {} `{}`", self.what, self.got)?;
        if let Some(name) = self.nearest() {
            write!(f, "; did you mean `{name}`?")?;
        }
        write!(f, " (known: {})", self.known.join(", "))
    }
}

/// Declares an enumeration with names: `Display` prints the first of a variant, `FromStr` and serde understand all.
macro_rules! named_enum {
    (
        $(#[$meta:meta])*
        $name:ident: $what:literal {
            $( $(#[$variant_meta:meta])* $variant:ident = $first:literal $(| $other:literal)*, )+
        }
    ) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub enum $name {
            $( $(#[$variant_meta])* $variant, )+
        }

        impl $name {
            /// Every variant, in the order of the documentation.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The name that is printed.
            pub fn name(self) -> &'static str {
                match self { $(Self::$variant => $first),+ }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.pad(self.name())
            }
        }

        impl std::str::FromStr for $name {
            type Err = $crate::named::UnknownName;

            fn from_str(name: &str) -> Result<Self, Self::Err> {
                match name {
                    $( $first $(| $other)* => Ok(Self::$variant), )+
                    _ => Err($crate::named::UnknownName {
                        what: $what,
                        got: name.to_owned(),
                        known: Self::ALL.iter().map(|known| known.name()).collect(),
                    }),
                }
            }
        }

        impl TryFrom<String> for $name {
            type Error = $crate::named::UnknownName;

            fn try_from(name: String) -> Result<Self, Self::Error> {
                name.parse()
            }
        }

        impl From<$name> for String {
            fn from(value: $name) -> Self {
                value.name().to_owned()
            }
        }
    };
}
pub(crate) use named_enum;
