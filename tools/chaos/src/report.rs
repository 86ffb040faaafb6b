//! Figures beside their targets; of several runs the worst counts.

use std::fmt;

use grantd_kit::report::Goal;

/// One line of the table.
#[derive(Debug, Clone)]
struct Row {
    figure: &'static str,
    what: String,
    /// The value, the target and the conditions of each run.
    runs: Vec<(f64, Goal, String)>,
}

/// The table.
#[derive(Debug, Default)]
pub struct Report(Vec<Row>);

impl Report {
    /// Adds the value of one run, and prints it at once.
    pub fn add(&mut self, figure: &'static str, what: &str, target: Goal, value: f64, conditions: impl Into<String>) {
        let conditions = conditions.into();
        eprintln!("   {figure:>3}  {what}: {} (target {target})  [{conditions}]", shown(value));
        let row = self.0.iter_mut().find(|row| row.figure == figure && row.what == what);
        match row {
            Some(row) => row.runs.push((value, target, conditions)),
            None => self.0.push(Row { figure, what: what.to_owned(), runs: vec![(value, target, conditions)] }),
        }
    }
}

/// Rows of one figure about one subject, which their names begin with.
pub struct Rows<'a> {
    report: &'a mut Report,
    figure: &'static str,
    subject: String,
}

impl Report {
    /// Rows of a figure about a subject.
    pub fn rows(&mut self, figure: &'static str, subject: impl Into<String>) -> Rows<'_> {
        Rows { report: self, figure, subject: subject.into() }
    }
}

impl Rows<'_> {
    /// Adds the value of one run.
    pub fn add(&mut self, what: &str, target: Goal, value: f64, conditions: impl Into<String>) {
        self.report.add(self.figure, &format!("{}: {what}", self.subject), target, value, conditions);
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

/// The value with few digits.
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
            report.add("1", "goodput, %", Goal::AtLeast(90.0), value, conditions.to_owned());
        }
        report.add("M80", "AUC", Goal::Between(0.48, 0.52, 0.003), 0.51, String::new());
        report.add("M80", "AUC", Goal::Between(0.48, 0.52, 0.003), 0.47, String::new());
        report.add("2", "p99, ms", Goal::AtMost(50.0), f64::NAN, String::new());
        let text = report.to_string();
        assert!(text.contains("| >= 90 | 88 | MISSED | second; all runs: 95, 88, 99 |"), "{text}");
        assert!(text.contains("| 0.48..0.52 | 0.470 | MISSED |"), "{text}");
        assert!(text.contains("not measured | MISSED"), "{text}");
    }
}
