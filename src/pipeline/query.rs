//! Which copy a person means: of which job and host, by id, by run, or the latest good one.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use chrono::{DateTime, Utc};

use crate::engine::Engine;
use crate::model::copy::{CLOCK_SLACK, Copy};
use crate::model::job::Config;
use crate::model::names::{HostName, JobName, RunId, TargetName};
use crate::model::outcome::Trouble;
use crate::model::target::Target;
use crate::source::series;
use crate::step::context::Pipeline;
use crate::step::error::StepError;

use super::select::{finished_copies, targets_of};

mod told;

use told::{say, tell_doubts, tell_what_was_passed_over};

/// The copies that a person means by a job: those of one host, which need not be this one, also when the
/// configuration has no such job (any more).
#[derive(Debug, Clone, Copy)]
pub struct Query<'a> {
    /// The job whose copies are meant.
    pub job: &'a JobName,
    /// The host whose copies are meant; this one's when absent.
    pub host: Option<&'a HostName>,
    /// The only target to read.
    pub target: Option<&'a TargetName>,
    /// The stream; [`NAMELESS`] for copies that have none.
    pub item: Option<&'a str>,
}

/// The stream of a job in which these paths lie, where that is one of several and what is asked for is none by itself: a
/// subvolume holds all below it but what lies in another one.
pub fn stream_of(
    pipeline: Pipeline<'_>,
    job: &JobName,
    wanted: &str,
    paths: &[PathBuf],
) -> Option<String> {
    let is_of_several = wanted == "latest" || RunId::parse(wanted).is_some();
    let job = pipeline.config.job(job).filter(|_| is_of_several)?;
    let declared: Vec<String> =
        pipeline.source(job).declared().unwrap_or_default().into_iter().flatten().collect();
    let around = |path: &PathBuf| {
        let around = declared
            .iter()
            .filter(|item| Path::new(item).is_absolute() && path.starts_with(Path::new(item)));
        around.max_by_key(|item| Path::new(item).components().count())
    };
    let first = around(paths.first()?)?;
    paths.iter().all(|path| around(path) == Some(first)).then(|| first.clone())
}

/// What a person says for the copies of a job that are of no stream: those of files. A stream of this name comes
/// first.
pub const NAMELESS: &str = "files";

impl<'a> Query<'a> {
    fn host(&self, config: &'a Config) -> &'a HostName {
        self.host.unwrap_or(config.host_of(self.job))
    }

    /// Whether a copy is of the job, and of this host or of any.
    fn means(&self, copy: &Copy, host: Option<&HostName>) -> bool {
        copy.series.as_ref().is_some_and(|series| {
            series.job == *self.job && host.is_none_or(|host| series.host == *host)
        })
    }

    /// Those of the copies that are of the job, of this host or of any, and of the stream if one is asked for; and the
    /// streams that are meant.
    fn filter<'c>(
        &self,
        pipeline: Pipeline<'_>,
        copies: &'c [Copy],
        host: Option<&HostName>,
    ) -> (Vec<&'c Copy>, BTreeSet<Option<&'c str>>) {
        let mut meant: Vec<&Copy> = copies.iter().filter(|copy| self.means(copy, host)).collect();
        let streams = streams(pipeline, self, &meant);
        meant.retain(|copy| self.item.is_none() || streams.contains(&item_of(copy)));
        (meant, streams)
    }
}

/// The machine that a copy is of, where that is another one, from which its job pulls: no path in it is one of this machine's.
pub fn pulled_from<'c>(config: &'c Config, job: &JobName, copy: &'c Copy) -> Option<&'c HostName> {
    let series = copy.series.as_ref();
    // Named by its id, it may be of another job.
    let jobs = [Some(job), series.map(|series| &series.job)];
    let mut pulled = jobs.into_iter().flatten().filter_map(|job| config.job(job)?.source.host());
    let pulled = pulled.next()?;
    // It need not be the machine from which the job pulls now.
    let host = series.map_or(pulled, |series| &series.host);
    (*host != config.settings.host).then_some(host)
}

/// Refuses what would take the paths of a copy for those of this machine, where they are another's. `instead` says what can be done.
///
/// # Errors
/// When they are.
pub fn refuse_elsewhere(
    config: &Config,
    query: &Query<'_>,
    copy: &Copy,
    instead: &str,
) -> Result<(), StepError> {
    let Some(host) = pulled_from(config, query.job, copy) else { return Ok(()) };
    let text = format!("{} is of {host}, and its place is there — {instead}", copy.id);
    Err(StepError::new(Trouble::Usage, text))
}

/// One copy of a job: `latest`, an id (six characters or more of it), or a run id. The first target in
/// which it is found, and nothing is known against it, serves it; a target that cannot be read is passed over as long as
/// another one can. `latest` is the newest good copy in any of them: a target that missed the last nights does not serve
/// it.
///
/// A named copy is found under any host's name, since an id means one copy; in a target that is named too, it is
/// found whatever it is marked with. The observer is told whose it is then.
///
/// # Errors
/// When no target has it, or several copies answer to the text.
pub fn copy<'a>(
    pipeline: Pipeline<'a>,
    query: &Query<'_>,
    wanted: &str,
) -> Result<Found<'a>, StepError> {
    let (engine, copy) = find(pipeline, query, wanted)?;
    tell_doubts(pipeline, &copy);
    Ok((engine, copy))
}

/// Two copies of a job, as [`copy`] finds each, that one target has both. Of several targets that have them, the first in
/// which nothing is known against either serves them.
///
/// # Errors
/// As [`copy`]; and when no target has both, or several have others that answer to the texts.
pub fn pair<'a>(
    pipeline: Pipeline<'a>,
    query: &Query<'_>,
    older: &str,
    newer: &str,
) -> Result<(&'a dyn Engine, Copy, Copy), StepError> {
    let listings = listings(pipeline, query, |engine, copies| {
        let has = |wanted| {
            let found = named(pipeline, query, copies, wanted, &engine.target().name);
            wanted != LATEST && found.is_ok_and(|found| found.is_some_and(|it| it.may_be_good()))
        };
        Ok(has(older) && has(newer))
    })?;
    let found = |wanted| all(pipeline, query, &listings, wanted);
    let (olds, news) = (found(older)?, found(newer)?);
    let mut pairs: Vec<(&dyn Engine, &Copy, &Copy)> = Vec::new();
    for (engine, new) in &news {
        let target = &engine.target().name;
        let old = olds.iter().find(|(engine, _)| engine.target().name == *target);
        pairs.extend(old.map(|(_, old)| (*engine, old, new)));
    }
    let places = |found: &[Found<'_>]| {
        let names = found.iter().map(|(engine, _)| engine.target().name.to_string());
        names.collect::<Vec<_>>().join(", ")
    };
    let good = pairs.iter().position(|(_, old, new)| old.may_be_good() && new.may_be_good());
    let Some((engine, old, new)) = pairs.get(good.unwrap_or(0)).copied() else {
        let text = format!(
            "no target has both copies, and only those of one can be compared: {older} is in {}, {newer} in {}",
            places(&olds),
            places(&news)
        );
        return Err(StepError::new(Trouble::Usage, text));
    };
    if pairs.iter().any(|(_, one, other)| !is_same(one, old) || !is_same(other, new)) {
        let places: Vec<&str> =
            pairs.iter().map(|(engine, ..)| engine.target().name.as_str()).collect();
        let text = format!(
            "{older} and {newer} are others in each of the targets {} — choose one with --target, or name more of the ids",
            places.join(", ")
        );
        return Err(StepError::new(Trouble::Usage, text));
    }
    for copy in [old, new] {
        tell_doubts(pipeline, copy);
    }
    Ok((engine, old.clone(), new.clone()))
}

/// Whether these are the same data, maybe in two targets.
fn is_same(one: &Copy, other: &Copy) -> bool {
    one.id == other.id || one.run.is_some() && one.run == other.run && one.series == other.series
}

/// What each of the targets has that is meant: at least one has something.
fn all<'a>(
    pipeline: Pipeline<'a>,
    query: &Query<'_>,
    listings: &Listings<'a>,
    wanted: &str,
) -> Result<Vec<Found<'a>>, StepError> {
    let mut found = Vec::new();
    if wanted == LATEST {
        found = latest(pipeline, query, listings)?;
    } else {
        for (engine, copies) in listings {
            let copy = named(pipeline, query, copies, wanted, &engine.target().name)?;
            found.extend(copy.map(|copy| (*engine, copy)));
        }
    }
    if found.is_empty() && wanted != LATEST {
        for (engine, copies) in listings {
            let copy = elsewhere(pipeline, query, copies, wanted, engine.target())?;
            found.extend(copy.map(|copy| (*engine, copy)));
        }
    }
    if found.is_empty() { Err(nothing(pipeline, query, listings, wanted)) } else { Ok(found) }
}

/// A copy, and the engine of the target that has it.
pub type Found<'a> = (&'a dyn Engine, Copy);

/// What a person says for the newest good copy.
const LATEST: &str = "latest";

/// What the targets list that could be read.
type Listings<'a> = Vec<(&'a dyn Engine, Vec<Copy>)>;

/// Lists the targets of a query one after the other, until `enough` of what one lists.
fn listings<'a>(
    pipeline: Pipeline<'a>,
    query: &Query<'_>,
    mut enough: impl FnMut(&'a dyn Engine, &[Copy]) -> Result<bool, StepError>,
) -> Result<Listings<'a>, StepError> {
    let mut unreadable: Option<StepError> = None;
    let mut listings: Listings<'_> = Vec::new();
    for target in targets_of(pipeline.config, query.job, query.target)? {
        let engine = pipeline.engine(target);
        match finished_copies(pipeline, engine) {
            Ok(copies) => {
                let is_enough = enough(engine, &copies)?;
                listings.push((engine, copies));
                if is_enough {
                    break;
                }
            }
            Err(error) => {
                say(pipeline, true, format!("target {} is skipped: {error}", target.name));
                unreadable.get_or_insert(error);
            }
        }
    }
    match unreadable {
        Some(error) if listings.is_empty() => Err(error),
        Some(_) | None => Ok(listings),
    }
}

fn find<'a>(
    pipeline: Pipeline<'a>,
    query: &Query<'_>,
    wanted: &str,
) -> Result<Found<'a>, StepError> {
    let mut doubtful: Vec<Found<'_>> = Vec::new();
    let mut good = None;
    let listings = listings(pipeline, query, |engine, copies| {
        if wanted == LATEST {
            return Ok(false);
        }
        let found = match named(pipeline, query, copies, wanted, &engine.target().name) {
            // What is found stays found.
            Err(_) if !doubtful.is_empty() => None,
            found => found?,
        };
        // A named copy that is there needs no other target.
        if let Some(copy) = found {
            // What another target has under this text may be of another moment, which nobody asked for.
            let is_other = doubtful.first().is_some_and(|(_, first)| !is_same(first, &copy));
            match (is_other, copy.may_be_good()) {
                (true, _) => {}
                (false, true) => good = Some((engine, copy)),
                (false, false) => doubtful.push((engine, copy)),
            }
        }
        Ok(good.is_some())
    })?;
    if let Some((engine, copy)) = good {
        for (passed, bad) in &doubtful {
            let (there, here) = (&passed.target().name, &engine.target().name);
            let why = bad.fault().unwrap_or_default();
            let text = format!(
                "{} in target {there} is not used ({why}), but that in target {here} — name it with --target {there} to use it",
                bad.id
            );
            say(pipeline, true, text);
        }
        return Ok((engine, copy));
    }
    if !doubtful.is_empty() {
        return Ok(doubtful.swap_remove(0));
    }
    Ok(all(pipeline, query, &listings, wanted)?.swap_remove(0))
}

/// The copy of the query's own host and job that answers to the text.
fn named(
    pipeline: Pipeline<'_>,
    query: &Query<'_>,
    copies: &[Copy],
    wanted: &str,
    target: &TargetName,
) -> Result<Option<Copy>, StepError> {
    let host = query.host(pipeline.config);
    let (of_query, streams) = query.filter(pipeline, copies, Some(host));
    // The id of a run means one copy for each stream, of which the job's present ones come first.
    let mut found = answering(&of_query, wanted);
    if found.len() > 1 && query.item.is_none() {
        let present: Vec<&Copy> =
            found.iter().copied().filter(|copy| streams.contains(&item_of(copy))).collect();
        if !present.is_empty() {
            found = present;
        }
    }
    one(found, wanted, target)
}

/// A copy that answers to the text and is not the query's own: of another host under the job's name or, where the
/// target was named, any copy at all.
fn elsewhere(
    pipeline: Pipeline<'_>,
    query: &Query<'_>,
    copies: &[Copy],
    wanted: &str,
    target: &Target,
) -> Result<Option<Copy>, StepError> {
    if query.host.is_some() {
        return Ok(None);
    }
    let (of_job, _) = query.filter(pipeline, copies, None);
    let mut found = answering(&of_job, wanted);
    if found.is_empty() && query.target.is_some() && query.item.is_none() {
        found = answering(&copies.iter().collect::<Vec<_>>(), wanted);
    }
    let found = one(found, wanted, &target.name)?;
    if let Some(copy) = &found {
        let whose = match &copy.series {
            Some(series) => format!("of job {} on host {}", series.job, series.host),
            None => "of another program".to_owned(),
        };
        say(pipeline, false, format!("{} in target {} is a copy {whose}", copy.id, target.name));
    }
    Ok(found)
}

/// Those that answer to the text; a whole id means nothing else.
fn answering<'c>(copies: &[&'c Copy], wanted: &str) -> Vec<&'c Copy> {
    let exact: Vec<&Copy> = copies.iter().copied().filter(|copy| copy.id == wanted).collect();
    if !exact.is_empty() {
        return exact;
    }
    copies.iter().copied().filter(|copy| copy.answers_to(wanted)).collect()
}

fn one(found: Vec<&Copy>, wanted: &str, target: &TargetName) -> Result<Option<Copy>, StepError> {
    if found.len() > 1 {
        let ids: Vec<&str> = found.iter().map(|copy| copy.id.as_str()).collect();
        let text = format!(
            "{wanted} is ambiguous in target {target}: {} — name more of the id, or a stream with --item",
            ids.join(", ")
        );
        return Err(StepError::new(Trouble::Usage, text));
    }
    Ok(found.first().map(|copy| (*copy).clone()))
}

fn item_of(copy: &Copy) -> Option<&str> {
    copy.series.as_ref().and_then(|series| series.item.as_deref())
}

/// The streams that are meant: the one asked for; else those that the job has now; else, of a job that has none of
/// what is there (it was of another kind once, or is not in the configuration), all that there are.
fn streams<'c>(
    pipeline: Pipeline<'_>,
    query: &Query<'_>,
    copies: &[&'c Copy],
) -> BTreeSet<Option<&'c str>> {
    let present: BTreeSet<Option<&str>> = copies.iter().map(|copy| item_of(copy)).collect();
    if let Some(item) = query.item {
        let wanted = if present.contains(&Some(item)) { Some(item) } else { None };
        return present
            .into_iter()
            .filter(|there| *there == wanted && (there.is_some() || item == NAMELESS))
            .collect();
    }
    let configured = pipeline.config.job(query.job);
    // Reading copies back goes on without history.
    let configured = configured.and_then(|job| series(pipeline, job).ok()).unwrap_or_default();
    let now: BTreeSet<Option<&str>> = present
        .iter()
        .copied()
        .filter(|there| configured.iter().any(|series| series.item.as_deref() == *there))
        .collect();
    if now.is_empty() { present } else { now }
}

/// The newest good copy, in each of the targets that have it; the first of them serves it. None where there is no copy.
fn latest<'a>(
    pipeline: Pipeline<'a>,
    query: &Query<'_>,
    listings: &Listings<'a>,
) -> Result<Vec<Found<'a>>, StepError> {
    let now = pipeline.host.now();
    let mut of_query: Vec<(&dyn Engine, &Copy)> = Vec::new();
    let host = query.host(pipeline.config);
    for (engine, copies) in listings {
        let meant = |copy: &&Copy| query.means(copy, Some(host));
        of_query.extend(copies.iter().filter(meant).map(|copy| (*engine, copy)));
    }
    let all: Vec<&Copy> = of_query.iter().map(|(_, copy)| *copy).collect();
    let streams = streams(pipeline, query, &all);
    if streams.len() > 1 {
        let names: Vec<&str> = streams.iter().map(|item| item.unwrap_or(NAMELESS)).collect();
        let text = format!(
            "job {} has copies of several subvolumes or streams — choose one with --item: {}",
            query.job,
            names.join(", ")
        );
        return Err(StepError::new(Trouble::Usage, text));
    }
    of_query.retain(|(_, copy)| streams.contains(&item_of(copy)));
    let Some(best) = choose(&of_query.iter().map(|(_, copy)| *copy).collect::<Vec<_>>(), now)
    else {
        return Ok(Vec::new());
    };
    tell_what_was_passed_over(pipeline, &of_query, best, now);
    // Copies of one run are the same data, so the first target of them serves it.
    let run = best.run.clone();
    let same = |copy: &Copy| copy.id == best.id || run.is_some() && copy.run == run;
    let usable = |copy: &Copy| copy.ours == best.ours && copy.may_be_good() == best.may_be_good();
    let found = of_query.iter().filter(|(_, copy)| same(copy) && usable(copy));
    Ok(found.map(|(engine, copy)| (*engine, (*copy).clone())).collect())
}

/// The best to take for the latest one: none of the future unless there is nothing else; good before known to be bad;
/// ours before others', as far as history knows any; and of those the newest.
fn choose<'c>(copies: &[&'c Copy], now: DateTime<Utc>) -> Option<&'c Copy> {
    let rank =
        |copy: &Copy| (!copy.is_in_the_future(now, CLOCK_SLACK), copy.may_be_good(), copy.ours);
    let best = copies.iter().map(|copy| rank(copy)).max()?;
    copies
        .iter()
        .copied()
        .filter(|copy| rank(copy) == best)
        .reduce(|last, copy| if copy.is_newer_than(last) { copy } else { last })
}

fn nothing(
    pipeline: Pipeline<'_>,
    query: &Query<'_>,
    listings: &Listings<'_>,
    wanted: &str,
) -> StepError {
    let what = if wanted == LATEST { "no copy".to_owned() } else { format!("no copy {wanted}") };
    let places: Vec<&str> =
        listings.iter().map(|(engine, _)| engine.target().name.as_str()).collect();
    let host = query.host(pipeline.config);
    let of_job = |copy: &&Copy| query.means(copy, None);
    let hosts: BTreeSet<&str> = listings
        .iter()
        .flat_map(|(_, copies)| copies.iter().filter(of_job))
        .filter_map(|copy| copy.series.as_ref().map(|series| series.host.as_str()))
        .filter(|other| *other != host.as_str())
        .collect();
    let hint = if hosts.is_empty() {
        "see `stillpoint list`".to_owned()
    } else {
        let hosts: Vec<&str> = hosts.into_iter().collect();
        format!("there are copies of host {}: use --host", hosts.join(", "))
    };
    StepError::new(
        Trouble::JobFailed,
        format!(
            "there is {what} of job {} on host {host} in {} — {hint}",
            query.job,
            places.join(", ")
        ),
    )
}
