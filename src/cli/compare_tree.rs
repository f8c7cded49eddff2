//! `compare-tree`: not for people. It compares what was sent with the copy that is described on standard input; see
//! [`crate::tools::manifest`].

use std::cmp::Ordering;
use std::io::{BufRead, Write};
use std::path::{Path, PathBuf};

use clap::Args;

use crate::tools::manifest::{Described, Difference, Line, Sample, Summary, Told, differs};

use super::describe_tree::SampleOptions;
use super::options::Verdict;
use super::piped;
use super::tree_walk::Walk;

/// How many paths that differ are told.
const TOLD: u64 = 100;

/// How much is told of why something cannot be read, in characters.
const LONGEST_REASON: usize = 300;

/// Arguments of `compare-tree`.
#[derive(Debug, Args)]
pub struct CompareTreeArgs {
    #[command(flatten)]
    sample: SampleOptions,
    /// The root of what was sent
    #[arg(value_name = "DIR")]
    root: PathBuf,
}

/// Runs the verb.
pub fn run(args: &CompareTreeArgs) -> Verdict {
    let mut copy = std::io::stdin().lock();
    piped::list(|out| compare_all(&args.root, args.sample.sample(), &mut copy, out))
}

/// Tells what differs, and at last what came of it. All of the description is read: whoever leaves something unread has
/// failed.
fn compare_all(
    root: &Path,
    sample: Sample,
    described: &mut impl BufRead,
    out: &mut impl Write,
) -> anyhow::Result<()> {
    let compared = match Walk::over(root, sample.seed).map_err(Broken::Source) {
        Ok(walk) => compare(walk, sample, described, out),
        Err(broken) => Err(broken),
    };
    let last = match compared {
        Ok(summary) => Line::Compared(summary),
        Err(Broken::Source(error)) => {
            std::io::copy(described, &mut std::io::sink())?;
            Line::NoSource(format!("{error:#}"))
        }
        Err(Broken::Other(error)) => return Err(error),
    };
    piped::entry(out, &last)
}

/// Why it came to no end.
enum Broken {
    /// What was sent cannot be read.
    Source(anyhow::Error),
    /// The description or its reader is at fault.
    Other(anyhow::Error),
}

impl From<anyhow::Error> for Broken {
    fn from(error: anyhow::Error) -> Self {
        Broken::Other(error)
    }
}

/// Compares both. They come in the same order, so whichever path is behind is missing in the other one. Only paths of the
/// source are looked at: those of the copy are what somebody says.
fn compare(
    mut walk: Walk<'_>,
    sample: Sample,
    described: &mut impl BufRead,
    out: &mut impl Write,
) -> Result<Summary, Broken> {
    let mut summary = Summary::default();
    let mut source = walk.next().map_err(Broken::Source)?;
    let mut copy: Option<Told> = piped::read_entry(described)?;
    loop {
        let order = match (&source, &copy) {
            (None, None) => return Ok(summary),
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some(source), Some(copy)) => source.path.as_path().cmp(copy.path()),
        };
        let (path, what) = match (order, &source, &copy) {
            (Ordering::Less, Some(source), _) => (&*source.path, Some("not in the copy".into())),
            (Ordering::Greater, _, Some(copy)) => (copy.path(), Some("in the copy alone".into())),
            (_, Some(source), Some(copy)) => {
                (&*source.path, compared(&walk, sample, source, copy, &mut summary)?)
            }
            (_, None, _) | (_, _, None) => return Ok(summary),
        };
        summary.entries += 1;
        if let Some(what) = what {
            tell(Difference { path: path.to_owned(), what }, &mut summary, out)?;
        }
        if order != Ordering::Greater {
            source = walk.next().map_err(Broken::Source)?;
        }
        if order != Ordering::Less {
            copy = piped::read_entry(described)?;
        }
    }
}

/// Tells of a difference, unless many were told of already.
fn tell(found: Difference, summary: &mut Summary, out: &mut impl Write) -> anyhow::Result<()> {
    summary.differing += 1;
    if summary.differing <= TOLD {
        piped::entry(out, &Line::Differs(found))?;
    }
    Ok(())
}

/// How a path differs. Which content is compared is ours to say: what is not told of it is no content.
fn compared(
    walk: &Walk<'_>,
    sample: Sample,
    source: &Described,
    copy: &Told,
    summary: &mut Summary,
) -> Result<Option<String>, Broken> {
    let copy = match copy {
        Told::Is(copy) => copy,
        // It is whatever somebody says.
        Told::Unreadable(copy) => {
            let plain = copy.what.chars().filter(|it| !it.is_control());
            return Ok(Some(plain.take(LONGEST_REASON).collect()));
        }
    };
    let is_read = source.has_content() && sample.has(&source.path);
    let content = is_read.then(|| walk.content(&source.path)).transpose();
    let content = content.map_err(Broken::Source)?;
    summary.contents += u64::from(is_read);
    let told = copy.content.clone().filter(|_| is_read);
    let source = Described { content, ..source.clone() };
    Ok(differs(&source, &Described { content: told, ..copy.clone() }))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: Sample = Sample { share: 100.0, seed: 9 };

    /// What is said of a tree by whoever describes it truly.
    fn description(root: &std::path::Path) -> Vec<Described> {
        let mut walk = Walk::over(root, ALL.seed).unwrap();
        let mut all = Vec::new();
        while let Some(mut entry) = walk.next().unwrap() {
            entry.content = entry.has_content().then(|| walk.content(&entry.path).unwrap());
            all.push(entry);
        }
        all
    }

    fn said(lines: &[Told]) -> Vec<u8> {
        let mut text = Vec::new();
        lines.iter().for_each(|line| piped::entry(&mut text, line).unwrap());
        text
    }

    /// What comes of a description: the differences that are told, and the end.
    fn against(
        root: &std::path::Path,
        sample: Sample,
        text: &[u8],
    ) -> Result<(String, Summary), String> {
        let walk = Walk::over(root, sample.seed).unwrap();
        let mut out = Vec::new();
        match compare(walk, sample, &mut &*text, &mut out) {
            Ok(summary) => Ok((String::from_utf8(out).unwrap(), summary)),
            Err(Broken::Source(error)) => Err(format!("source: {error:#}")),
            Err(Broken::Other(error)) => Err(format!("{error:#}")),
        }
    }

    #[test]
    fn nothing_is_believed_that_was_not_told_for_this_seed() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["a", "b", "c"] {
            std::fs::write(dir.path().join(name), name).unwrap();
        }
        let truth = description(dir.path());
        let of = |change: &dyn Fn(&mut Vec<Told>)| {
            let mut lines: Vec<Told> = truth.iter().cloned().map(Told::Is).collect();
            change(&mut lines);
            against(dir.path(), ALL, &said(&lines)).unwrap()
        };
        let (told, summary) = of(&|_| {});
        assert_eq!(told, "");
        assert_eq!(summary, Summary { entries: 4, contents: 3, differing: 0 });
        // An answer to an earlier question, and one that leaves the content out.
        let text = said(&truth.iter().cloned().map(Told::Is).collect::<Vec<_>>());
        let (told, summary) = against(dir.path(), Sample { seed: 8, ..ALL }, &text).unwrap();
        assert!(told.contains("content") && summary.differing == 3, "{told}");
        let without = |line: &Described| Told::Is(Described { content: None, ..line.clone() });
        let lines: Vec<Told> = truth.iter().map(without).collect();
        let (told, summary) = against(dir.path(), ALL, &said(&lines)).unwrap();
        assert!(told.contains("content") && summary.differing == 3, "{told}");
        // Nothing that was asked for is left out, and what was not asked for does not count.
        let (told, summary) = against(dir.path(), Sample { share: 0.0, ..ALL }, &text).unwrap();
        assert_eq!((told.as_str(), summary.contents, summary.differing), ("", 0, 0));
        let (told, _) = of(&|lines| drop(lines.remove(2)));
        assert!(told.contains("not in the copy"), "{told}");
        let (_, summary) = of(&|lines| lines.reverse());
        assert!(summary.differing > 0);
        let (_, summary) = of(&|lines| lines.clear());
        assert_eq!(summary.differing, 4);
        let unreadable = Difference { path: "b".into(), what: "Input/output error".into() };
        let (told, summary) = of(&|lines| lines[2] = Told::Unreadable(unreadable.clone()));
        assert!(told.contains("Input/output error") && summary.differing == 1, "{told}");
        let outside = || Described { path: "/etc/shadow".into(), ..truth[1].clone() };
        let (told, _) = of(&|lines| lines.push(Told::Is(outside())));
        assert!(told.contains("in the copy alone"), "{told}");
    }

    #[test]
    fn what_is_torn_is_no_description_and_a_source_that_is_gone_is_no_damage() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("a"), "a").unwrap();
        let truth: Vec<Told> = description(dir.path()).into_iter().map(Told::Is).collect();
        let text = said(&truth);
        let torn = against(dir.path(), ALL, &text[..text.len() - 1]).unwrap_err();
        assert!(torn.contains("torn"), "{torn}");
        for odd in [&b"Welcome!\n"[..], b"{}\n", &[b'x'; 3 << 20]] {
            let torn = against(dir.path(), ALL, odd).unwrap_err();
            assert!(torn.contains("torn"), "{torn}");
        }
        let walk = Walk::over(dir.path(), ALL.seed).unwrap();
        std::fs::remove_file(dir.path().join("a")).unwrap();
        std::os::unix::fs::symlink("/nowhere", dir.path().join("b")).unwrap();
        let Told::Is(gone) = &truth[1] else { panic!("{truth:?}") };
        let content = compared(&walk, ALL, gone, &truth[1], &mut Summary::default());
        assert!(matches!(content, Err(Broken::Source(_))));
    }

    #[test]
    fn where_the_source_cannot_be_read_the_description_is_read_all_the_same() {
        let scene = tempfile::tempdir().unwrap();
        let gone = scene.path().join("gone");
        let mut described = std::io::Cursor::new(vec![b'x'; 300_000]);
        let mut out = Vec::new();
        compare_all(&gone, ALL, &mut described, &mut out).unwrap();
        assert_eq!(described.position(), 300_000);
        let line: Line = serde_json::from_slice(&out).unwrap();
        assert!(matches!(line, Line::NoSource(_)), "{line:?}");
    }
}
