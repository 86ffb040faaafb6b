//! Figures beside their targets; of several runs the worst counts.

use std::fmt;

/// What a value has to be.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Target {
    AtLeast(f64),
    AtMost(f64),
    /// From, to, and the standard error of what was measured: too large an error decides nothing.
    Between(f64, f64, f64),
    /// Nothing; it is told for its own sake.
    Told,
}

impl Target {
    fn verdict(self, value: f64) -> &'static str {
        let is_met = match self {
            Self::AtLeast(least) => value >= least,
            Self::AtMost(most) => value <= most,
            Self::Between(least, most, error) => {
                let outside = (least - value).max(value - most);
                if outside <= 2.0 * error && (outside > 0.0 || error > MOST_ERROR) {
                    return "undecided";
                }
                outside <= 0.0
            }
            Self::Told => return "",
        };
        if is_met { "met" } else { "MISSED" }
    }

    /// How far on the wrong side, so that the worst of several runs is the largest. What could not be measured is worst.
    fn badness(self, value: f64) -> f64 {
        let badness = match self {
            Self::AtLeast(_) => -value,
            Self::AtMost(_) | Self::Told => value,
            Self::Between(least, most, _) => (value - f64::midpoint(least, most)).abs(),
        };
        if badness.is_nan() { f64::INFINITY } else { badness }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AtLeast(least) => write!(f, ">= {least}"),
            Self::AtMost(most) => write!(f, "<= {most}"),
            Self::Between(least, most, _) => write!(f, "{least}..{most}"),
            Self::Told => write!(f, "-"),
        }
    }
}

/// One line of the table.
#[derive(Debug, Clone)]
struct Row {
    figure: &'static str,
    what: String,
    /// One for each run, with its target and its conditions.
    runs: Vec<(f64, Target, String)>,
}

/// The table.
#[derive(Debug, Default)]
pub struct Report(Vec<Row>);

impl Report {
    /// Adds the value of one run, and says it at once to whoever watches.
    pub fn add(&mut self, figure: &'static str, what: &str, target: Target, value: f64, conditions: String) {
        eprintln!("   {figure:>3}  {what}: {} (target {target})  [{conditions}]", shown(value));
        let row = self.0.iter_mut().find(|row| row.figure == figure && row.what == what);
        match row {
            Some(row) => row.runs.push((value, target, conditions)),
            None => self.0.push(Row { figure, what: what.to_owned(), runs: vec![(value, target, conditions)] }),
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "| figure | measured | target | value | | conditions |\n|---|---|---|---|---|---|")?;
        for Row { figure, what, runs } in &self.0 {
            let worst = runs.iter().max_by(|a, b| a.1.badness(a.0).total_cmp(&b.1.badness(b.0)));
            let Some((value, target, conditions)) = worst else { continue };
            let verdict = target.verdict(*value);
            let all = match runs.len() {
                1 => String::new(),
                _ => format!("; all runs: {}", runs.iter().map(|run| shown(run.0)).collect::<Vec<_>>().join(", ")),
            };
            writeln!(f, "| {figure} | {what} | {target} | {} | {verdict} | {conditions}{all} |", shown(*value))?;
        }
        Ok(())
    }
}

/// A standard error above this is half the band of M80.
const MOST_ERROR: f64 = 0.01;

/// Few digits, and those that count.
fn shown(value: f64) -> String {
    let size = value.abs();
    if value.is_nan() {
        "not measured".to_owned()
    } else if size >= 1000.0 || (size - size.round()).abs() < 1e-9 {
        format!("{value:.0}")
    } else if size >= 10.0 {
        format!("{value:.1}")
    } else {
        format!("{value:.3}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_run_is_published_with_its_conditions() {
        let mut report = Report::default();
        for (value, conditions) in [(95.0, "first"), (88.0, "second"), (99.0, "third")] {
            report.add("1", "goodput, %", Target::AtLeast(90.0), value, conditions.to_owned());
        }
        report.add("M80", "AUC", Target::Between(0.48, 0.52, 0.003), 0.51, String::new());
        report.add("M80", "AUC", Target::Between(0.48, 0.52, 0.003), 0.47, String::new());
        report.add("2", "p99, ms", Target::AtMost(50.0), f64::NAN, String::new());
        let text = report.to_string();
        assert!(text.contains("| >= 90 | 88 | MISSED | second; all runs: 95, 88, 99 |"), "{text}");
        assert!(text.contains("| 0.48..0.52 | 0.470 | MISSED |"), "{text}");
        assert!(text.contains("not measured | MISSED"), "{text}");
    }
    #[test]
    fn too_few_samples_decide_nothing() {
        let verdict = |value, error| Target::Between(0.48, 0.52, error).verdict(value);
        assert_eq!(verdict(0.5, 0.009), "met");
        assert_eq!(verdict(0.5, 0.05), "undecided");
        assert_eq!(verdict(0.36, 0.17), "undecided");
        assert_eq!(verdict(0.53, 0.004), "MISSED");
        assert_eq!(verdict(f64::NAN, 0.004), "MISSED");
    }
}
