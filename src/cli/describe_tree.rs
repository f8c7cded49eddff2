//! `describe-tree`: not for people. It says what a copy holds; see [`crate::tools::manifest`].

use std::path::PathBuf;

use clap::Args;

use crate::tools::manifest::{Described, Difference, Sample, Told};

use super::options::Verdict;
use super::piped;
use super::tree_walk::Walk;

/// Arguments of `describe-tree`.
#[derive(Debug, Args)]
pub struct DescribeTreeArgs {
    #[command(flatten)]
    sample: SampleOptions,
    /// The root of the tree
    #[arg(value_name = "DIR")]
    root: PathBuf,
}

/// Which content is read, for both of the verbs.
#[derive(Debug, Args)]
pub struct SampleOptions {
    /// The share of the files whose content is read, in percent
    #[arg(long)]
    share: f64,
    /// Which ones these are, and what every hash begins with
    #[arg(long)]
    seed: u64,
}

impl SampleOptions {
    pub(super) fn sample(&self) -> Sample {
        Sample { share: self.share, seed: self.seed }
    }
}

/// Runs the verb. What cannot be looked at is told, and passed over: the rest of the copy may be well.
pub fn run(args: &DescribeTreeArgs) -> Verdict {
    let sample = args.sample.sample();
    let mut walk = Walk::over(&args.root, sample.seed)?;
    piped::list(|out| {
        loop {
            let told = match walk.next() {
                Ok(None) => return Ok(()),
                Ok(Some(entry)) => whole(&walk, sample, entry),
                Err(error) => unreadable(&walk, &error),
            };
            piped::entry(out, &told)?;
        }
    })
}

/// An entry with its content, where that is read.
fn whole(walk: &Walk<'_>, sample: Sample, mut entry: Described) -> Told {
    if entry.has_content() && sample.has(&entry.path) {
        match walk.content(&entry.path) {
            Ok(content) => entry.content = Some(content),
            Err(error) => return unreadable(walk, &error),
        }
    }
    Told::Is(entry)
}

fn unreadable(walk: &Walk<'_>, error: &anyhow::Error) -> Told {
    Told::Unreadable(Difference { path: walk.path().to_owned(), what: format!("{error:#}") })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_looked_at_is_told_and_the_rest_is_described() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["a", "b", "c"] {
            std::fs::write(dir.path().join(name), name).unwrap();
        }
        let mut walk = Walk::over(dir.path(), 0).unwrap();
        assert_eq!(walk.next().unwrap().unwrap().path, PathBuf::new());
        // Its name was read, and nothing is behind it.
        std::fs::remove_file(dir.path().join("b")).unwrap();
        assert_eq!(walk.next().unwrap().unwrap().path, PathBuf::from("a"));
        let error = walk.next().unwrap_err();
        let Told::Unreadable(told) = unreadable(&walk, &error) else { panic!("{error}") };
        assert_eq!(told.path, PathBuf::from("b"));
        assert!(told.what.contains("No such file"), "{}", told.what);
        let last = walk.next().unwrap().unwrap();
        std::fs::remove_file(dir.path().join("c")).unwrap();
        let all = Sample { share: 100.0, seed: 0 };
        let told = whole(&walk, all, last);
        assert!(
            matches!(&told, Told::Unreadable(it) if it.path == std::path::Path::new("c")),
            "{told:?}"
        );
        assert!(walk.next().unwrap().is_none());
    }
}
