//! Figures with their spread, beside the goals that they are held against.

use std::fmt;

/// A figure that was taken several times.
#[derive(Debug, Clone, Default)]
pub struct Figure(Vec<f64>);

impl Figure {
    /// Takes all values; the order does not matter.
    #[must_use]
    pub fn new(mut values: Vec<f64>) -> Self {
        values.sort_by(f64::total_cmp);
        Self(values)
    }

    /// The middle one, or between the middle two.
    #[must_use]
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

/// What a figure has to be.
#[derive(Debug, Clone, Copy)]
pub enum Goal {
    /// Nothing was promised.
    None,
    /// At least this.
    AtLeast(f64),
    /// At most this.
    AtMost(f64),
}

/// Everything that was found, printed as it comes and summed up at the end.
#[derive(Debug, Default)]
pub struct Report {
    missed: Vec<String>,
    void: Vec<String>,
    section: String,
    errors: Option<String>,
}

impl Report {
    /// Begins a table.
    pub fn section(&mut self, title: &str) {
        title.clone_into(&mut self.section);
        self.errors = None;
        println!("\n== {title}");
    }

    /// Says something that is no figure.
    pub fn note(&self, text: &str) {
        println!("   {text}");
    }

    /// A line of a table.
    pub fn row(&self, name: &str, columns: &[String]) {
        let columns: String = columns.iter().map(|column| format!(" {column:>24}")).collect();
        println!("   {name:<20}{columns}");
    }

    /// A run with errors does not count: until the next section, goals are neither met nor missed.
    pub fn errors(&mut self, count: u64, unavailable: u64, first: Option<&str>) {
        let first = first.unwrap_or("unknown");
        let text = format!("{count} errors, {unavailable} of them answers 503, the first: {first}");
        println!("   DOES NOT COUNT: {text}");
        self.errors.get_or_insert(text);
    }

    /// A figure beside its goal; its median is judged.
    pub fn figure(&mut self, name: &str, figure: &Figure, unit: &str, goal: Goal) {
        let (wanted, met) = match goal {
            Goal::None => (String::new(), None),
            Goal::AtLeast(least) => (format!(">= {least}"), Some(figure.median() >= least)),
            Goal::AtMost(most) => (format!("<= {most}"), Some(figure.median() <= most)),
        };
        let verdict = match (met, &self.errors) {
            (None, _) => "",
            (Some(_), Some(_)) => "does not count",
            (Some(true), None) => "met",
            (Some(false), None) => "MISSED",
        };
        let value = format!("{figure} {unit}");
        let line = format!("   {name:<46} {value:<34} {wanted:<9} {verdict}");
        println!("{}", line.trim_end());
        let told = || format!("{name}: {}, goal {wanted} [{}]", value.trim_end(), self.section);
        match (met, &self.errors) {
            (Some(false), None) => self.missed.push(told()),
            (Some(_), Some(errors)) => self.void.push(format!("{} ({errors})", told())),
            _ => {}
        }
    }

    /// Lists what did not go as wished.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_figure_tells_its_middle_and_its_spread() {
        assert_eq!(Figure::new(vec![3.0, 1.0, 2.0]).to_string(), "2.00 (1.00..3.00)");
        assert_eq!(Figure::new(vec![1500.0, 1000.0]).to_string(), "1250 (1000..1500)");
        assert_eq!(Figure::new(vec![20.5]).to_string(), "20.5");
    }

    #[test]
    fn a_run_with_errors_meets_no_goal() {
        let mut report = Report::default();
        report.section("one");
        report.errors(1, 0, Some("status 500"));
        report.figure("x", &Figure::new(vec![2.0]), "", Goal::AtLeast(1.0));
        report.section("two");
        report.figure("y", &Figure::new(vec![2.0]), "", Goal::AtMost(1.0));
        assert_eq!((report.void.len(), report.missed.len()), (1, 1));
    }
}
