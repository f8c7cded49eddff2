//! The Prometheus textfile: the answer of `status` and the last runs, as numbers. Pure.
//!
//! The caller replaces the file atomically (0644) after each run. Since every value comes from history, a
//! run of one job keeps the other jobs' series, and a failed run leaves `last_success` where it was. What
//! is not known has no line: never a zero.
//!
//! Format: <https://prometheus.io/docs/instrumenting/exposition_formats/>, text format 0.0.4.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use chrono::{DateTime, Utc};

use super::facts::{Facts, TargetFacts};
use super::status::{StatusEntry, StatusReport};
use crate::model::outcome::Outcome;

/// Every outcome there is: a state set has one line for each, so that an old state does not linger.
const OUTCOMES: [&str; 6] = ["ok", "skipped", "warning", "incomplete", "failed", "interrupted"];

/// Label names and values, in the order in which they are written.
type Labels<'a> = Vec<(&'static str, &'a str)>;

/// The content of the textfile.
pub fn textfile(status: &StatusReport, facts: &Facts) -> String {
    let mut page = Page(String::new());
    last_runs(&mut page, &status.entries);
    last_good_copies(&mut page, &status.entries);
    page.gauge(
        "stillpoint_step_duration_seconds",
        "How long each step of the last run took.",
        step_durations(facts),
    );
    targets(&mut page, facts);
    page.0
}

/// How old the copies of each job are, and how its last run ended.
fn last_runs(page: &mut Page, entries: &[StatusEntry]) {
    page.gauge(
        "stillpoint_last_success_timestamp_seconds",
        "The moment for which the last good copy stands.",
        each_entry(entries, |entry| entry.last_good.map(seconds)),
    );
    page.gauge(
        "stillpoint_last_run_timestamp_seconds",
        "When the last run ended, however it ended.",
        each_entry(entries, |entry| entry.last_run.map(seconds)),
    );
    page.gauge(
        "stillpoint_last_run_outcome",
        "1 for the outcome of the last run, 0 for the others.",
        entries.iter().flat_map(outcome_states),
    );
    page.gauge(
        "stillpoint_stale",
        "1 when the last good copy is older than it may get, or there is none.",
        each_entry(entries, |entry| Some(f64::from(u8::from(entry.stale)))),
    );
    page.gauge(
        "stillpoint_max_age_seconds",
        "How old the last good copy may get.",
        each_entry(entries, |entry| Some(entry.max_age_seconds as f64)),
    );
}

/// How large the last good copies are.
fn last_good_copies(page: &mut Page, entries: &[StatusEntry]) {
    page.gauge(
        "stillpoint_copy_size_bytes",
        "Bytes of the original data in the last good copy.",
        each_entry(entries, |entry| entry.size.map(|size| size as f64)),
    );
    page.gauge(
        "stillpoint_copy_files",
        "Files in the last good copy.",
        each_entry(entries, |entry| entry.files.map(|files| files as f64)),
    );
    page.gauge(
        "stillpoint_bytes_new",
        "Bytes that the last good copy added to the target.",
        each_entry(entries, |entry| entry.bytes_new.map(|bytes| bytes as f64)),
    );
}

/// When targets were last maintained, and which are closed.
fn targets(page: &mut Page, facts: &Facts) {
    page.gauge(
        "stillpoint_check_timestamp_seconds",
        "When the last check that found nothing ended.",
        each_target(facts, |known| known.checked.map(seconds)),
    );
    page.gauge(
        "stillpoint_compact_timestamp_seconds",
        "When deleted data was last removed from the repository.",
        each_target(facts, |known| known.compacted.map(seconds)),
    );
    page.gauge(
        "stillpoint_target_closed",
        "1 when nothing is deleted or compacted in the target until somebody has dealt with what was found, see `stillpoint status`.",
        each_target(facts, |known| Some(f64::from(u8::from(!known.closures.is_empty())))),
    );
}

/// A time as Prometheus has it: seconds since 1970, with milliseconds.
fn seconds(time: DateTime<Utc>) -> f64 {
    time.timestamp_millis() as f64 / 1_000.0
}

fn labels(entry: &StatusEntry) -> Labels<'_> {
    let mut labels = vec![("job", entry.job.as_str()), ("target", entry.target.as_str())];
    labels.extend(entry.item.as_deref().map(|item| ("item", item)));
    labels
}

fn each_entry<'a>(
    entries: &'a [StatusEntry],
    value: impl Fn(&StatusEntry) -> Option<f64>,
) -> impl Iterator<Item = (Labels<'a>, f64)> {
    entries.iter().filter_map(move |entry| Some((labels(entry), value(entry)?)))
}

fn each_target<'a>(
    facts: &'a Facts,
    value: impl Fn(&TargetFacts) -> Option<f64>,
) -> impl Iterator<Item = (Labels<'a>, f64)> {
    facts
        .targets
        .iter()
        .filter_map(move |(target, known)| Some((vec![("target", target.as_str())], value(known)?)))
}

fn outcome_states(entry: &StatusEntry) -> Vec<(Labels<'_>, f64)> {
    let Some(now) = entry.outcome.as_ref().map(Outcome::word) else { return Vec::new() };
    OUTCOMES
        .iter()
        .map(|word| {
            let mut labels = labels(entry);
            labels.push(("outcome", word));
            (labels, f64::from(u8::from(*word == now)))
        })
        .collect()
}

/// Durations by their labels; a step that happened twice at one place counts as one, since two lines of the
/// same labels would make the whole file invalid.
fn step_durations(facts: &Facts) -> BTreeMap<Labels<'_>, f64> {
    let mut sums: BTreeMap<Labels<'_>, f64> = BTreeMap::new();
    let of_jobs = facts
        .steps
        .iter()
        .flat_map(|(job, steps)| steps.iter().map(move |step| (Some(job.as_str()), step)));
    let of_targets =
        facts.targets.values().flat_map(|known| known.steps.iter().map(|step| (None, step)));
    for (job, step) in of_jobs.chain(of_targets) {
        let mut labels: Labels<'_> = Vec::with_capacity(4);
        labels.extend(job.map(|job| ("job", job)));
        labels.extend(step.target.as_ref().map(|target| ("target", target.as_str())));
        labels.extend(step.item.as_deref().map(|item| ("item", item)));
        labels.push(("step", step.step.as_str()));
        *sums.entry(labels).or_default() += step.seconds;
    }
    sums
}

struct Page(String);

impl Page {
    /// Writes one metric with its head; nothing at all when there is no value.
    fn gauge<'a>(
        &mut self,
        name: &str,
        help: &str,
        samples: impl IntoIterator<Item = (Labels<'a>, f64)>,
    ) {
        let mut samples = samples.into_iter().peekable();
        if samples.peek().is_none() {
            return;
        }
        // Writing to a String cannot fail.
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} gauge");
        for (labels, value) in samples {
            let labels: Vec<String> = labels
                .into_iter()
                .map(|(label, value)| format!("{label}=\"{}\"", escaped(value)))
                .collect();
            let _ = writeln!(self.0, "{name}{{{}}} {value}", labels.join(","));
        }
    }
}

/// A label's value between its quotes.
fn escaped(value: &str) -> String {
    value.replace('\\', r"\\").replace('"', "\\\"").replace('\n', r"\n")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::history::StepTime;
    use crate::history::{Closure, ClosureKind};
    use crate::model::names::{JobName, RunId, TargetName};
    use crate::model::report::SCHEMA;

    fn at(text: &str) -> DateTime<Utc> {
        text.parse().unwrap()
    }

    fn entry(item: Option<&str>) -> StatusEntry {
        StatusEntry {
            job: JobName::new("dumps").unwrap(),
            target: TargetName::new("usb").unwrap(),
            item: item.map(str::to_owned),
            last_good: None,
            age_seconds: None,
            max_age_seconds: 86_400,
            stale: true,
            outcome: None,
            last_run: None,
            due: Vec::new(),
            closed: None,
            closures: Vec::new(),
            copy: None,
            size: None,
            files: None,
            bytes_new: None,
            trend: Vec::new(),
            in_the_future: 0,
            listed: None,
        }
    }

    fn step(step: &str, target: Option<&str>, millis: u64) -> StepTime {
        StepTime {
            target: target.map(|name| TargetName::new(name).unwrap()),
            item: None,
            step: step.into(),
            outcome: Outcome::Ok,
            seconds: Duration::from_millis(millis).as_secs_f64(),
        }
    }

    #[test]
    fn what_is_known_is_written_once_and_what_is_not_is_left_out() {
        let good = StatusEntry {
            last_good: Some(at("2026-02-01T12:00:00.5Z")),
            stale: false,
            outcome: Some(Outcome::Failed),
            last_run: Some(at("2026-02-02T12:00:00Z")),
            size: Some(1_234_567_890_123),
            files: Some(0),
            ..entry(Some("a\\b\"c\nd"))
        };
        let status = StatusReport { schema: SCHEMA, entries: vec![good, entry(None)] };
        let mut facts = Facts::default();
        facts.steps.insert(
            JobName::new("dumps").unwrap(),
            vec![
                step("before", None, 500),
                step("backup", Some("usb"), 1_250),
                step("backup", Some("usb"), 250),
            ],
        );
        let damaged = Closure {
            target: TargetName::new("usb").unwrap(),
            kind: ClosureKind::Damage,
            subject: String::new(),
            extent: None,
            detail: "chunk 17".into(),
            run: RunId::from_bytes([7; 4]),
            since: at("2026-01-01T00:00:00Z"),
        };
        let known = TargetFacts {
            closures: vec![damaged],
            checked: Some(at("2026-01-01T00:00:00Z")),
            steps: vec![step("check", Some("usb"), 9_000)],
            ..TargetFacts::default()
        };
        facts.targets.insert(TargetName::new("usb").unwrap(), known);
        facts.targets.insert(TargetName::new("nas").unwrap(), TargetFacts::default());
        insta::assert_snapshot!(textfile(&status, &facts), @r#"
        # HELP stillpoint_last_success_timestamp_seconds The moment for which the last good copy stands.
        # TYPE stillpoint_last_success_timestamp_seconds gauge
        stillpoint_last_success_timestamp_seconds{job="dumps",target="usb",item="a\\b\"c\nd"} 1769947200.5
        # HELP stillpoint_last_run_timestamp_seconds When the last run ended, however it ended.
        # TYPE stillpoint_last_run_timestamp_seconds gauge
        stillpoint_last_run_timestamp_seconds{job="dumps",target="usb",item="a\\b\"c\nd"} 1770033600
        # HELP stillpoint_last_run_outcome 1 for the outcome of the last run, 0 for the others.
        # TYPE stillpoint_last_run_outcome gauge
        stillpoint_last_run_outcome{job="dumps",target="usb",item="a\\b\"c\nd",outcome="ok"} 0
        stillpoint_last_run_outcome{job="dumps",target="usb",item="a\\b\"c\nd",outcome="skipped"} 0
        stillpoint_last_run_outcome{job="dumps",target="usb",item="a\\b\"c\nd",outcome="warning"} 0
        stillpoint_last_run_outcome{job="dumps",target="usb",item="a\\b\"c\nd",outcome="incomplete"} 0
        stillpoint_last_run_outcome{job="dumps",target="usb",item="a\\b\"c\nd",outcome="failed"} 1
        stillpoint_last_run_outcome{job="dumps",target="usb",item="a\\b\"c\nd",outcome="interrupted"} 0
        # HELP stillpoint_stale 1 when the last good copy is older than it may get, or there is none.
        # TYPE stillpoint_stale gauge
        stillpoint_stale{job="dumps",target="usb",item="a\\b\"c\nd"} 0
        stillpoint_stale{job="dumps",target="usb"} 1
        # HELP stillpoint_max_age_seconds How old the last good copy may get.
        # TYPE stillpoint_max_age_seconds gauge
        stillpoint_max_age_seconds{job="dumps",target="usb",item="a\\b\"c\nd"} 86400
        stillpoint_max_age_seconds{job="dumps",target="usb"} 86400
        # HELP stillpoint_copy_size_bytes Bytes of the original data in the last good copy.
        # TYPE stillpoint_copy_size_bytes gauge
        stillpoint_copy_size_bytes{job="dumps",target="usb",item="a\\b\"c\nd"} 1234567890123
        # HELP stillpoint_copy_files Files in the last good copy.
        # TYPE stillpoint_copy_files gauge
        stillpoint_copy_files{job="dumps",target="usb",item="a\\b\"c\nd"} 0
        # HELP stillpoint_step_duration_seconds How long each step of the last run took.
        # TYPE stillpoint_step_duration_seconds gauge
        stillpoint_step_duration_seconds{job="dumps",step="before"} 0.5
        stillpoint_step_duration_seconds{job="dumps",target="usb",step="backup"} 1.5
        stillpoint_step_duration_seconds{target="usb",step="check"} 9
        # HELP stillpoint_check_timestamp_seconds When the last check that found nothing ended.
        # TYPE stillpoint_check_timestamp_seconds gauge
        stillpoint_check_timestamp_seconds{target="usb"} 1767225600
        # HELP stillpoint_target_closed 1 when nothing is deleted or compacted in the target until somebody has dealt with what was found, see `stillpoint status`.
        # TYPE stillpoint_target_closed gauge
        stillpoint_target_closed{target="nas"} 0
        stillpoint_target_closed{target="usb"} 1
        "#);
    }

    #[test]
    fn nothing_known_is_an_empty_page() {
        let status = StatusReport { schema: SCHEMA, entries: Vec::new() };
        assert_eq!(textfile(&status, &Facts::default()), "");
    }
}
