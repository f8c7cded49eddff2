//! Copies of other programs on a server. What lies there and that it was received whole, the server says; whose it is, this
//! machine, by the UUIDs of its own snapshots.

use super::FarEngine;
use super::adoption::offered;
use super::answers::{Adopted, Others};
use super::names::{CopyName, SentUuid};
use super::others::{Other, Wanted};
use super::wire::Ask;
use crate::engine::{Adoption, Context, Engine, EngineError, Found, TakeOver};
use crate::model::copy::Copy;

impl Adoption for FarEngine {
    fn foreign(&self, cx: Context<'_>) -> Result<Found, EngineError> {
        self.require_adopting(cx)?;
        let others: Option<Others> = self.ask(cx, &self.asking(Ask::Others {})?, &mut |_| {})?;
        let Others { fit, mut unfit } = others.unwrap_or_default();
        let is_fit = |other: &Other| {
            CopyName::new(&*other.name).is_some()
                && [&other.uuid, &other.sent].iter().all(|it| SentUuid::new(&***it).is_some())
        };
        let (fit, odd): (Vec<Other>, Vec<Other>) = fit.into_iter().partition(is_fit);
        let why = "its name has characters that are told to no server; rename it";
        unfit.extend(odd.iter().map(|other| format!("{}: {why}", other.name.escape_debug())));
        Ok(offered(cx, Others { fit, unfit }))
    }

    /// Whatever is taken over there is pinned and proven by nobody; what else is wanted is asked for like any change.
    fn take_over(
        &self,
        cx: Context<'_>,
        wanted: &[TakeOver<'_>],
    ) -> Result<Vec<String>, EngineError> {
        let copies: Vec<Wanted> = wanted.iter().filter_map(Wanted::of).collect();
        let asked: Vec<CopyName> = copies.iter().map(|it| it.name.clone()).collect();
        let spec = self.asking(Ask::Adopt { copies })?;
        let adopted: Option<Adopted> = self.ask(cx, &spec, &mut |_| {})?;
        let mut adopted = adopted.map(|it| it.copies).unwrap_or_default();
        adopted.retain(|copy| asked.contains(copy));
        for copy in &adopted {
            let is_it = |it: &&TakeOver<'_>| it.foreign.id == copy.as_str();
            let Some(TakeOver { pinned, proven, .. }) = wanted.iter().find(is_it) else { continue };
            if *proven {
                self.change(cx, &self.asking(Ask::Prove { copy: copy.clone() })?)?;
            }
            if !pinned {
                let unpin = Ask::Pin { copy: copy.clone(), pinned: false };
                self.change(cx, &self.asking(unpin)?)?;
            }
        }
        Ok(adopted.into_iter().map(String::from).collect())
    }

    fn prove(&self, cx: Context<'_>, copy: &Copy) -> Result<(), EngineError> {
        self.change(cx, &self.asking(Ask::Prove { copy: self.name(copy)? })?)
    }
}

impl FarEngine {
    /// Refuses to ask a server of an older version, which would not understand it.
    fn require_adopting(&self, cx: Context<'_>) -> Result<(), EngineError> {
        let (listing, _) = self.listing(cx)?;
        match listing.adopts {
            true => Ok(()),
            false => {
                let what = "tell what other programs received there: the Stillpoint on the server is too old";
                Err(EngineError::unsupported(self.target(), what))
            }
        }
    }
}
