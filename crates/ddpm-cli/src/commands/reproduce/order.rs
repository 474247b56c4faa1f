//! What the small scale orders unlike the paper.

/// A measure of one model, in the paper and here; nothing where the training or the samples were useless.
pub(super) struct Compared<'a> {
    /// The model.
    pub(super) name: &'a str,
    /// The paper's value.
    pub(super) paper: Option<f64>,
    /// Ours.
    pub(super) here: Option<f64>,
}

/// A line for each pair of models that is the other way round here, for each that only one of both could train; or one line that
/// says that the order is the paper's.
pub(super) fn differences(measure: &str, lower_is_better: bool, models: &[Compared<'_>]) -> Vec<String> {
    let better = |a: f64, b: f64| if lower_is_better { a < b } else { a > b };
    let mut lines = Vec::new();
    let both: Vec<_> = models.iter().filter_map(|m| Some((m.name, m.paper?, m.here?))).collect();
    for (i, &(first, first_paper, first_here)) in both.iter().enumerate() {
        for &(second, second_paper, second_here) in &both[i + 1..] {
            if better(first_paper, second_paper) != better(first_here, second_here) {
                let (a, b) = if better(first_paper, second_paper) {
                    ((first, first_paper, first_here), (second, second_paper, second_here))
                } else {
                    ((second, second_paper, second_here), (first, first_paper, first_here))
                };
                lines.push(format!(
                    "{measure}: in the paper {} ({:.2}) is better than {} ({:.2}), here it is not ({:.2}, {:.2})",
                    a.0, a.1, b.0, b.1, a.2, b.2
                ));
            }
        }
    }
    if lines.is_empty() && both.len() > 1 {
        lines.push(format!("{measure}: the order is the paper's"));
    }
    for model in models {
        match (model.paper, model.here) {
            (None, Some(here)) => {
                lines.push(format!("{measure}: {} was unstable in the paper, here it has {here:.2}", model.name));
            }
            (Some(paper), None) => {
                lines.push(format!("{measure}: {} has {paper:.2} in the paper, here it was unstable", model.name));
            }
            _ => {}
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn models<'a>(values: &[(&'a str, Option<f64>, Option<f64>)]) -> Vec<Compared<'a>> {
        values.iter().map(|&(name, paper, here)| Compared { name, paper, here }).collect()
    }

    #[test]
    fn pairs_the_other_way_round_are_named() {
        let three = models(&[("a", Some(3.0), Some(9.0)), ("b", Some(13.0), Some(5.0)), ("c", Some(20.0), Some(10.0))]);
        assert_eq!(
            differences("FID", true, &three),
            ["FID: in the paper a (3.00) is better than b (13.00), here it is not (9.00, 5.00)"]
        );
        // the same numbers where more is better
        assert_eq!(
            differences("IS", false, &three),
            ["IS: in the paper b (13.00) is better than a (3.00), here it is not (5.00, 9.00)"]
        );
        let same = models(&[("a", Some(3.0), Some(1.0)), ("b", Some(13.0), Some(5.0))]);
        assert_eq!(differences("FID", true, &same), ["FID: the order is the paper's"]);
    }

    #[test]
    fn what_only_one_could_train_is_named() {
        let one = models(&[("a", None, Some(4.0)), ("b", Some(2.0), None), ("c", None, None)]);
        assert_eq!(
            differences("FID", true, &one),
            [
                "FID: a was unstable in the paper, here it has 4.00",
                "FID: b has 2.00 in the paper, here it was unstable"
            ]
        );
    }
}
