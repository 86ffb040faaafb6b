//! Figures with their spread, beside the goals that they are held against.

use std::fmt;

use grantd_kit::report::Goal;

use crate::generator::Outcome;

/// A figure that was taken several times.
#[derive(Debug, Clone, Default)]
pub struct Figure(Vec<f64>);

impl Figure {
    /// The figure with these values, in any order.
    pub fn new(mut values: Vec<f64>) -> Self {
        values.sort_by(f64::total_cmp);
        Self(values)
    }

    /// The figure with one value.
    pub fn one(value: f64) -> Self {
        Self(vec![value])
    }

    /// The middle value, or the mean of the middle two.
    pub fn median(&self) -> f64 {
        let at = |index: usize| self.0.get(index).copied().unwrap_or(f64::NAN);
        let half = self.0.len() / 2;
        if self.0.len() % 2 == 1 { at(half) } else { f64::midpoint(at(half.wrapping_sub(1)), at(half)) }
    }
}

impl fmt::Display for Figure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = match self.median().abs() {
            large if large >= 1000.0 => 0,
            middling if middling >= 10.0 => 1,
            _ => 2,
        };
        let median = format!("{:.digits$}", self.median());
        match (self.0.first(), self.0.last()) {
            (Some(least), Some(most)) if self.0.len() > 1 => {
                write!(f, "{median} ({least:.digits$}..{most:.digits$})")
            }
            _ => f.write_str(&median),
        }
    }
}

/// The report: figures are printed at once, and those that missed their goals again at the end.
#[derive(Debug, Default)]
pub struct Report {
    missed: Vec<String>,
    void: Vec<String>,
    section: String,
    errors: Option<String>,
}

impl Report {
    /// Begins a section.
    pub fn section(&mut self, title: &str) {
        title.clone_into(&mut self.section);
        self.errors = None;
        println!("\n== {title}");
    }

    /// Notes the errors of a run, if it had any: until the next section, goals are neither met nor missed.
    pub fn errors(&mut self, seen: &Outcome) {
        if seen.errors > 0 {
            let first = seen.first_error.as_deref().unwrap_or("unknown");
            let (count, unavailable) = (seen.errors, seen.unavailable);
            let text = format!("{count} errors, {unavailable} of them answers 503, the first: {first}");
            println!("   DOES NOT COUNT: {text}");
            self.errors.get_or_insert(text);
        }
    }

    /// Prints a figure beside its goal; the median is judged.
    pub fn figure(&mut self, name: &str, figure: &Figure, unit: &str, goal: Goal) {
        let wanted = if goal == Goal::None { String::new() } else { goal.to_string() };
        let verdict = match goal.verdict(figure.median()) {
            "" => "",
            _ if self.errors.is_some() => "does not count",
            verdict => verdict,
        };
        let value = format!("{figure} {unit}");
        let line = format!("   {name:<46} {value:<34} {wanted:<9} {verdict}");
        println!("{}", line.trim_end());
        let summary = format!("{name}: {}, goal {wanted} [{}]", value.trim_end(), self.section);
        match (verdict, &self.errors) {
            ("does not count", Some(errors)) => self.void.push(format!("{summary} ({errors})")),
            ("MISSED", _) => self.missed.push(summary),
            _ => {}
        }
    }

    /// Notes a section that could not be measured.
    pub fn failed(&mut self, section: &str, error: &anyhow::Error) {
        println!("   FAILED: {error:#}");
        self.missed.push(format!("{section}: not measured"));
    }

    /// Lists the goals that were missed or do not count.
    pub fn sum_up(&self) {
        println!("\n== In short");
        for missed in &self.missed {
            println!("   MISSED  {missed}");
        }
        for void in &self.void {
            println!("   does not count  {void}");
        }
        if self.missed.is_empty() && self.void.is_empty() {
            println!("   every goal that was looked at is met");
        }
    }
}

/// Prints a remark.
pub fn note(text: &str) {
    println!("   {text}");
}

/// Prints a line of a table.
pub fn row(name: &str, columns: &[String]) {
    let columns: String = columns.iter().map(|column| format!(" {column:>24}")).collect();
    println!("   {name:<20}{columns}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_figure_reports_its_median_and_its_spread() {
        assert_eq!(Figure::new(vec![3.0, 1.0, 2.0]).to_string(), "2.00 (1.00..3.00)");
        assert_eq!(Figure::new(vec![1500.0, 1000.0]).to_string(), "1250 (1000..1500)");
        assert_eq!(Figure::one(20.5).to_string(), "20.5");
    }

    #[test]
    fn a_run_with_errors_meets_no_goal() {
        let mut report = Report::default();
        report.section("one");
        report.errors(&Outcome { errors: 1, first_error: Some("status 500".to_owned()), ..Outcome::default() });
        report.figure("x", &Figure::one(2.0), "", Goal::AtLeast(1.0));
        report.section("two");
        report.figure("y", &Figure::one(2.0), "", Goal::AtMost(1.0));
        assert_eq!((report.void.len(), report.missed.len()), (1, 1));
    }
}
