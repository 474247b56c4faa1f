//! The classes that pictures are drawn of.

use ddpm_train::model::Trained;

use crate::{args::How, failure::Failure};

/// The class that stands for none.
pub(super) fn null_class(how: &How, model: &Trained) -> Result<Option<usize>, Failure> {
    let count = model.unet.config().num_class_embeds.unwrap_or(usize::MAX);
    match how.null_class {
        Some(null) if null >= count => {
            Err(Failure::usage(format!("--null-class {null} is not allowed; allowed: 0 to {}", count - 1)))
        }
        Some(null) => Ok(Some(null)),
        None => Ok(model.null_class),
    }
}

/// What is drawn where no class is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum WithoutClass {
    /// All classes in turn.
    Turns,
    /// No class; a model that has none that stands for that must be told one.
    None,
}

/// The classes that pictures take in turn; none for a model without.
pub(super) struct Wanted {
    classes: Vec<usize>,
    asked: bool,
}

impl Wanted {
    /// The class of each of `n` pictures.
    pub(super) fn labels(&self, n: usize) -> Option<Vec<usize>> {
        (!self.classes.is_empty()).then(|| self.classes.iter().copied().cycle().take(n).collect())
    }

    /// The columns of a grid with a class each, where several were asked for.
    pub(super) fn columns(&self) -> Option<usize> {
        (self.asked && self.classes.len() > 1).then_some(self.classes.len())
    }

    /// At least `n`, with every row of such a grid whole.
    pub(super) fn whole_rows(&self, n: usize) -> usize {
        self.columns().map_or(n, |columns| n.div_ceil(columns) * columns)
    }
}

/// The classes that flags ask for.
pub(super) fn wanted(how: &How, model: &Trained, without: WithoutClass) -> Result<Wanted, Failure> {
    let config = model.unet.config();
    let null = null_class(how, model)?;
    let refuse = |what: String, hint: String| Err(Failure::usage(what).next(hint));
    if !config.is_class_conditional() {
        return match &how.class {
            Some(_) => refuse("this model has no classes".to_owned(), "leave --class out".to_owned()),
            None => Ok(Wanted { classes: Vec::new(), asked: false }),
        };
    }
    let all = || config.num_class_embeds.map(|count| (0..count).filter(|&class| Some(class) != null).collect());
    let Some(text) = &how.class else {
        let classes = match without {
            WithoutClass::Turns => all(),
            WithoutClass::None => null.map(|null| vec![null]),
        };
        return match classes {
            Some(classes) => Ok(Wanted { classes, asked: false }),
            None => refuse("this model needs a class".to_owned(), format!("--class K; {}", names(model))),
        };
    };
    let class = |text: &str| -> Result<usize, Failure> {
        let text = text.trim();
        let known = model.classes.iter().position(|name| name.eq_ignore_ascii_case(text)).or(text.parse().ok());
        let class = match (known, text) {
            (Some(class), _) => class,
            (None, "none") => {
                null.ok_or_else(|| Failure::usage("this model knows no pictures without a class").next(names(model)))?
            }
            (None, _) => return Err(Failure::usage(format!("there is no class `{text}`")).next(names(model))),
        };
        match config.num_class_embeds {
            Some(count) if class >= count => {
                let what = format!("--class {class} is not allowed; allowed: 0 to {}", count - 1);
                Err(Failure::usage(what).next(names(model)))
            }
            _ => Ok(class),
        }
    };
    let classes = match text.trim() {
        "all" => match all() {
            Some(classes) => classes,
            None => return refuse("this model's classes are not counted".to_owned(), "--class K".to_owned()),
        },
        // A name may have a comma of its own.
        one if class(one).is_ok() => vec![class(one)?],
        several => several.split(',').map(class).collect::<Result<_, _>>()?,
    };
    Ok(Wanted { classes, asked: true })
}

fn names(model: &Trained) -> String {
    if model.classes.is_empty() {
        return "its classes have numbers only".to_owned();
    }
    let named = model.classes.iter().enumerate().map(|(i, name)| format!("{i} {name}"));
    format!("its classes: {}", named.collect::<Vec<_>>().join(", "))
}
