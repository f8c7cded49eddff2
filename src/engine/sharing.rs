//! One `btrfs send` for several targets: those that are at work at the same time and would send the very same meet here,
//! and it is sent once.
//!
//! Who is about to send waits until everybody who could want the same has come, or cannot come any more. Then the sender
//! runs once, in a chain of its own, and each of those who share it runs its own chain, which begins with a process that
//! takes what is shared; see [`crate::tools::btrfs::shared`]. Whoever fails by itself leaves the others alone. Whoever keeps
//! them waiting gets no more, and is to try again without them. Who does not come in time is not waited for again before it
//! is where it was waited for.
//!
//! A target that stores streams in parts has a sender of its own; see [`alone`].

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, Builder};
use std::time::{Duration, Instant};

use super::blame::culprit;
use crate::host::{
    Chained, CommandSpec, Completed, Exit, Halt, Host, PipeEnd, RunError, Stream, Watch,
};
use crate::model::target::Target;
use crate::tools::btrfs::shared::{self, Dropped, is_torn};

/// How long one waits for another that has begun on the same item: that may first have to clear away much.
const WAIT: Duration = Duration::from_secs(120);

/// How often somebody who waits looks whether we are to stop.
const TICK: Duration = Duration::from_millis(100);

/// So many times in its stall limit a target may keep others waiting: they must not reach theirs.
const PATIENCE: u32 = 4;

/// What is said of one that does.
const KEPT_WAITING: &str = "it took nothing for so long that other targets waited for it";

/// What a target would send.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Offer {
    send: CommandSpec,
    /// One that may take little at a time would slow all others down.
    upload_limit_kib: Option<u32>,
}

/// How far a target is: with which item, and with which snapshot of those that it gets of it.
type Turn = (usize, usize);

/// What a target is about.
#[derive(Debug)]
enum Member {
    /// With this; what it sends it does not know yet.
    Works(Turn),
    /// It waits for others that send the same.
    Waits { turn: Turn, offer: Box<Offer> },
    /// It is to send: with others, or alone.
    Goes(Option<Place>),
    /// It sends this with others: all of them are soon through with it.
    Shares(Turn),
    /// It sends alone, which may take long.
    Sends,
    /// It is through.
    Over,
}

impl Member {
    /// Whether it may soon be about to send something of this.
    fn may_come_to(&self, turn: Turn) -> bool {
        match self {
            Member::Works(with) => *with <= turn,
            // Of that one it has said what it sends.
            Member::Shares(with) => *with < turn,
            Member::Goes(Some(place)) => place.turn < turn,
            Member::Goes(None) | Member::Waits { .. } | Member::Sends | Member::Over => false,
        }
    }
}

/// One that was waited for in vain.
#[derive(Debug)]
struct Missed {
    member: usize,
    /// Where it was waited for: there it must come before anybody waits for it again.
    turn: Turn,
    /// Who does not wait for it any more; `None`: nobody does.
    by: Option<usize>,
}

/// A place among those who share.
#[derive(Debug, Clone)]
struct Place {
    turn: Turn,
    group: usize,
    from: PipeEnd,
    /// Raised when it keeps the others waiting: whatever holds it up would keep it from seeing that it gets no more.
    halt: Halt,
}

/// Those who share.
struct Group {
    /// What is sent, and what shares it, until somebody runs that.
    chain: Option<[CommandSpec; 2]>,
    /// Stops each of them.
    halts: Vec<Halt>,
    ended: Option<Ended>,
}

/// How a shared send ended.
#[derive(Debug, Clone)]
enum Ended {
    /// The sender ended so.
    Sent(Completed),
    /// Something else than the sender is to blame.
    Broken(String),
}

#[derive(Default)]
struct State {
    members: Vec<Member>,
    missed: Vec<Missed>,
    groups: Vec<Group>,
    /// Nobody runs what is shared.
    is_closed: bool,
}

/// Where targets meet.
pub struct Sharing {
    state: Mutex<State>,
    changed: Condvar,
    /// How long one waits for another.
    wait: Duration,
}

impl Default for Sharing {
    fn default() -> Self {
        Self { state: Mutex::default(), changed: Condvar::new(), wait: WAIT }
    }
}

/// One target's part in it, until it is dropped.
pub struct Seat<'a> {
    sharing: &'a Sharing,
    member: usize,
    turn: Mutex<Turn>,
    is_to_try_alone: AtomicBool,
}

impl Sharing {
    /// Another target takes part. Those who are there wait for it.
    pub fn join(&self) -> Seat<'_> {
        let mut state = self.state();
        let (sharing, member) = (self, state.members.len());
        let turn = Turn::default();
        state.members.push(Member::Works(turn));
        Seat { sharing, member, turn: turn.into(), is_to_try_alone: AtomicBool::new(false) }
    }

    /// Runs what is shared, until [`Sharing::closing`] ends it.
    pub fn serve(&self, host: &dyn Host) {
        thread::scope(|threads| {
            // Nobody waits for what nobody runs, whatever happens.
            let _closing = Closing(self);
            let mut state = self.state();
            while !state.is_closed {
                let next = state.groups.iter_mut().enumerate();
                let next = next.filter_map(|(at, group)| Some((at, group.chain.take()?))).next();
                let Some((group, chain)) = next else {
                    state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
                    continue;
                };
                drop(state);
                // Dropped with the work, also if there is no thread for it.
                let ending = Ending(self, group);
                let work = move || lead(host, chain, &ending);
                if let Err(error) = Builder::new().name("sender".into()).spawn_scoped(threads, work)
                {
                    tracing::warn!(%error, "no thread can be had, so nothing is shared");
                }
                state = self.state();
            }
        });
    }

    /// Has nothing be shared any more from when the answer is dropped.
    pub fn closing(&self) -> Closing<'_> {
        Closing(self)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes something, and lets everybody see it.
    fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self.state();
        let answer = change(&mut state);
        state.settle();
        self.changed.notify_all();
        answer
    }
}

/// Nothing is shared any more when this is dropped.
pub struct Closing<'a>(&'a Sharing);

impl Drop for Closing<'_> {
    fn drop(&mut self) {
        self.0.change(|state| {
            state.is_closed = true;
            for group in &mut state.groups {
                if group.chain.take().is_some() {
                    group.ended = Some(Ended::Broken("nobody ran it".into()));
                }
            }
        });
    }
}

/// The end of a shared send, told at the latest when this is dropped.
struct Ending<'a>(&'a Sharing, usize);

impl Ending<'_> {
    fn tell(&self, ended: Ended) {
        self.0.change(|state| {
            state.groups[self.1].ended.get_or_insert(ended);
        });
    }
}

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        self.tell(Ended::Broken("it was not run to its end".into()));
    }
}

/// Runs a sender for those who share it.
fn lead(host: &dyn Host, chain: [CommandSpec; 2], ending: &Ending<'_>) {
    let [send, share] = chain;
    let before = [send];
    let chained = host.chain(&before, &share, &mut |stream, line| {
        if let Some(Dropped { dropped }) = Dropped::read(line).filter(|_| stream == Stream::Err) {
            let halt = ending.0.state().groups[ending.1].halts.get(dropped).cloned();
            halt.into_iter().for_each(|halt| halt.raise(KEPT_WAITING));
        }
    });
    ending.tell(match chained {
        Ok(chained) => ended(&share, chained),
        Err(error) => Ended::Broken(error.to_string()),
    });
}

/// Who is to blame when a sender and what shares it ended so. Whoever is asked to stop because of the other one ends by the
/// signal that asks for it.
fn ended(share: &CommandSpec, chained: Chained) -> Ended {
    let Chained { before: mut senders, last, .. } = chained;
    let was_killed = matches!(last.exit, Exit::Signal(signal) if signal != share.stop_signal);
    match senders.pop() {
        // Some end by themselves when they are asked to stop because of that.
        Some(sender) if !was_killed && sender.is_own_failure() => Ended::Sent(sender),
        Some(sender) if !was_killed && !last.is_own_failure() => Ended::Sent(sender),
        Some(_) | None => {
            let (command, exit) = (share.display(), last.exit);
            Ended::Broken(format!("{command} failed ({exit}): {}", last.last_words(3)))
        }
    }
}

impl State {
    /// Sends everybody on who has nobody to wait for.
    fn settle(&mut self) {
        for at in 0..self.members.len() {
            let Member::Waits { turn, offer } = &self.members[at] else { continue };
            let is_missed = |member| {
                let by_it = |by: Option<usize>| by.is_none_or(|by| by == at);
                self.missed.iter().any(|missed| missed.member == member && by_it(missed.by))
            };
            let mut others = self.members.iter().enumerate();
            let may_come = others.any(|(it, other)| other.may_come_to(*turn) && !is_missed(it));
            if may_come && !self.is_closed {
                continue;
            }
            let offer = Offer::clone(offer);
            let wants_it = |member: &Member| matches!(member, Member::Waits { offer: other, .. } if **other == offer);
            let all = (0..self.members.len()).filter(|it| wants_it(&self.members[*it]));
            let together: Vec<usize> = all.collect();
            let places = match together.len() {
                1 => None,
                _ if self.is_closed => None,
                count => self.group(offer, (*turn, count)),
            };
            match places {
                Some(places) => {
                    for (member, place) in together.into_iter().zip(places) {
                        self.members[member] = Member::Goes(Some(place));
                    }
                }
                None => self.members[at] = Member::Goes(None),
            }
        }
    }

    /// A target knows what it would send.
    fn arrives(&mut self, member: usize, turn: Turn, offer: Box<Offer>) {
        self.members[member] = Member::Waits { turn, offer };
        self.missed.retain(|missed| missed.member != member || missed.turn > turn);
    }

    /// A target has waited long enough with this.
    fn gives_up(&mut self, member: usize, turn: Turn) {
        for (at, other) in self.members.iter().enumerate() {
            if !other.may_come_to(turn) {
                continue;
            }
            let by = match other {
                Member::Works(_) => None,
                // It is at work with others, and soon comes to the next with these.
                Member::Goes(_) | Member::Shares(_) => Some(member),
                Member::Waits { .. } | Member::Sends | Member::Over => continue,
            };
            self.missed.push(Missed { member: at, turn, by });
        }
    }

    /// A new group of so many; `None` when they cannot be joined.
    fn group(&mut self, offer: Offer, (turn, count): (Turn, usize)) -> Option<Vec<Place>> {
        let limit = offer.send.stall_limit?;
        let pairs: io::Result<Vec<_>> = (0..count).map(|_| PipeEnd::pair()).collect();
        let pairs = pairs.inspect_err(|error| {
            tracing::warn!(%error, "no pipes can be had, so nothing is shared");
        });
        let (from, to): (Vec<_>, Vec<_>) = pairs.ok()?.into_iter().unzip();
        let share = shared::share(to, limit / PATIENCE, limit);
        let group = self.groups.len();
        let chain = Some([offer.send, share]);
        let place = |from| Place { turn, group, from, halt: Halt::default() };
        let places: Vec<Place> = from.into_iter().map(place).collect();
        let halts = places.iter().map(|place| place.halt.clone()).collect();
        self.groups.push(Group { chain, halts, ended: None });
        Some(places)
    }
}

impl Seat<'_> {
    /// The target goes on to the item of this number.
    pub fn at(&self, item: usize) {
        self.turns_to((item, 0));
    }

    /// The target goes on to the next snapshot of the same item.
    pub fn at_the_next(&self) {
        let (item, snapshot) = self.turn();
        self.turns_to((item, snapshot + 1));
    }

    fn turn(&self) -> Turn {
        *self.turn.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn turns_to(&self, turn: Turn) {
        *self.turn.lock().unwrap_or_else(PoisonError::into_inner) = turn;
        self.is(Member::Works(turn));
    }

    /// Whether what was shared could not be taken to its end for no fault of the target's own, or because it kept others
    /// waiting. It is asked once: then it is at that, and nobody waits for it.
    pub fn is_to_try_alone(&self) -> bool {
        let is_to = self.is_to_try_alone.swap(false, Ordering::Relaxed);
        if is_to {
            self.is(Member::Sends);
        }
        is_to
    }

    fn is(&self, about: Member) {
        self.sharing.change(|state| state.members[self.member] = about);
    }

    /// Waits for those who send the same. Answers with a place among them, if there are any.
    fn meet(&self, host: &dyn Host, offer: Offer) -> Option<Place> {
        let (sharing, begun) = (self.sharing, Instant::now());
        let (turn, offer) = (self.turn(), Box::new(offer));
        sharing.change(|state| state.arrives(self.member, turn, offer));
        loop {
            let state = sharing.state();
            if let Member::Goes(place) = &state.members[self.member] {
                return place.clone();
            }
            drop(sharing.changed.wait_timeout(state, TICK).unwrap_or_else(PoisonError::into_inner));
            if host.stop_signal().is_some() || begun.elapsed() >= sharing.wait {
                sharing.change(|state| {
                    if matches!(state.members[self.member], Member::Waits { .. }) {
                        state.gives_up(self.member, turn);
                    }
                });
            }
        }
    }

    /// Runs a chain that takes what is shared in the place of its sender, of which it answers how that ended.
    fn take(
        &self,
        host: &dyn Host,
        Place { group, from, halt, .. }: Place,
        (before, last): (&[CommandSpec], &CommandSpec),
        watch: Watch<'_>,
    ) -> Result<Chained, RunError> {
        let mut taking = before.to_vec();
        taking[0] = shared::take(from, &before[0]);
        taking[0].view.halt = halt.clone();
        let mut chained = host.chain(&taking, last, watch).map_err(|error| match error {
            RunError::Halted { command, reason } if halt.reason().is_some() => {
                self.is_to_try_alone.store(true, Ordering::Relaxed);
                let reason = format!("{reason}, on the way to {}", last.display());
                RunError::Halted { command, reason }
            }
            error => error,
        })?;
        let is_first = |(spec, _): (&CommandSpec, &Completed)| std::ptr::eq(spec, &taking[0]);
        let ended = match is_torn(&chained.before[0].stderr_tail) {
            // Whoever comes behind it was asked to stop because of that, however it ended.
            true => self.verdict(group, &halt),
            false if culprit(&taking, last, &chained).is_some_and(is_first) => {
                Ended::Broken(chained.before[0].exit.to_string())
            }
            // It came to its end, or failed by itself.
            false => return Ok(chained),
        };
        let why = match ended {
            Ended::Sent(sender) if !sender.success() => {
                chained.before[0] = sender;
                return Ok(chained);
            }
            Ended::Sent(_) => "the sender ended well, and not all of it arrived".to_owned(),
            Ended::Broken(why) => why,
        };
        let command = taking[0].display();
        if let Some(signal) = host.stop_signal() {
            return Err(RunError::Interrupted { command, signal });
        }
        self.is_to_try_alone.store(true, Ordering::Relaxed);
        Err(RunError::Io { command, source: io::Error::other(why) })
    }

    /// How the shared send ended for one who has not got its end.
    fn verdict(&self, group: usize, halt: &Halt) -> Ended {
        let mut state = self.sharing.state();
        loop {
            if let Some(why) = halt.reason() {
                return Ended::Broken(why.to_owned());
            }
            if let Some(ended) = &state.groups[group].ended {
                return ended.clone();
            }
            let waited = self.sharing.changed.wait_timeout(state, TICK);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

/// One that sends, until this is dropped.
pub(super) struct Sending<'a>(&'a Seat<'a>);

impl Drop for Sending<'_> {
    fn drop(&mut self) {
        self.0.is(Member::Works(self.0.turn()));
    }
}

/// Has nobody wait for a target until the answer is dropped: its sender would hold the others up, since it stands still
/// while a part is stored, which may take a command long, looked at and recorded.
pub(super) fn alone<'a>(seat: Option<&'a Seat<'a>>) -> Option<Sending<'a>> {
    seat.inspect(|seat| seat.is(Member::Sends)).map(Sending)
}

/// Runs a chain that begins with a sender, which is shared with other targets where they would run the same.
///
/// # Errors
/// See [`Host::chain`]; also when the target is to try again alone, see [`Seat::is_to_try_alone`].
pub(super) fn chain(
    (host, seat): (&dyn Host, Option<&Seat<'_>>),
    target: &Target,
    (before, last): (&[CommandSpec], &CommandSpec),
    watch: Watch<'_>,
) -> Result<Chained, RunError> {
    let Some((seat, send)) = seat.zip(before.first()) else {
        return host.chain(before, last, watch);
    };
    let offer = Offer { send: send.clone(), upload_limit_kib: target.upload_limit_kib };
    let place = seat.meet(host, offer);
    let _sending = Sending(seat);
    let Some(place) = place else {
        seat.is(Member::Sends);
        return host.chain(before, last, watch);
    };
    seat.is(Member::Shares(place.turn));
    seat.take(host, place, (before, last), watch)
}

impl Drop for Seat<'_> {
    fn drop(&mut self) {
        self.is(Member::Over);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::scripted::ScriptedHost;
    use crate::host::Tool;

    fn offer(word: &str, upload_limit_kib: Option<u32>) -> Box<Offer> {
        let send = CommandSpec::lines(Tool::Own, Duration::from_secs(60)).arg(word);
        Box::new(Offer { send, upload_limit_kib })
    }

    fn waits(item: usize, word: &str) -> Member {
        Member::Waits { turn: (item, 0), offer: offer(word, None) }
    }

    fn settled(members: Vec<Member>) -> State {
        let mut state = State { members, ..State::default() };
        state.settle();
        state
    }

    /// The group of each; `None` of those who wait or do something else.
    fn went(state: &State) -> Vec<Option<Option<usize>>> {
        let of = |member: &Member| match member {
            Member::Goes(place) => Some(place.as_ref().map(|place| place.group)),
            Member::Works(_) | Member::Waits { .. } | Member::Shares(_) | Member::Sends => None,
            Member::Over => None,
        };
        state.members.iter().map(of).collect()
    }

    #[test]
    fn who_sends_the_same_goes_together_as_soon_as_nobody_else_may_come() {
        let all = vec![waits(0, "a"), Member::Works((0, 0)), waits(0, "b"), waits(0, "a")];
        let mut state = settled(all);
        assert_eq!(went(&state), [None; 4]);
        state.members[1] = Member::Over;
        state.settle();
        assert_eq!(went(&state), [Some(Some(0)), None, Some(None), Some(Some(0))]);
        let [send, share] = state.groups[0].chain.as_ref().unwrap();
        assert_eq!((send, share.passed.len()), (&offer("a", None).send, 2));
    }

    #[test]
    fn nobody_waits_for_who_sends_alone_or_is_further() {
        let state = settled(vec![waits(1, "a"), Member::Works((2, 0)), Member::Sends]);
        assert_eq!(went(&state), [Some(None), None, None]);
        for soon in [Member::Works((0, 0)), Member::Shares((0, 0))] {
            let state = settled(vec![waits(1, "a"), soon]);
            assert_eq!(went(&state), [None; 2], "it comes to that as well");
        }
    }

    #[test]
    fn who_was_faster_with_one_item_waits_with_the_next_for_those_who_share_it() {
        let mut state = settled(vec![waits(0, "a"), waits(0, "a")]);
        assert_eq!(went(&state), [Some(Some(0)); 2]);
        // The other one has not even begun.
        state.members[0] = waits(1, "b");
        state.settle();
        assert_eq!(went(&state), [None, Some(Some(0))]);
        for (there, now) in [
            (Member::Shares((0, 0)), None),
            (Member::Works((0, 0)), None),
            (Member::Works((1, 0)), None),
            (waits(1, "b"), Some(Some(1))),
        ] {
            state.members[1] = there;
            state.settle();
            assert_eq!(went(&state)[0], now);
        }
    }

    #[test]
    fn of_one_item_each_snapshot_is_waited_for_and_nothing_that_takes_long() {
        let next = || Member::Waits { turn: (0, 1), offer: offer("a", None) };
        // Of the first one, that one has said what it sends.
        let state = settled(vec![waits(0, "a"), Member::Shares((0, 0))]);
        assert_eq!(went(&state)[0], Some(None));
        for there in [Member::Shares((0, 0)), Member::Works((0, 0)), Member::Works((0, 1))] {
            assert_eq!(went(&settled(vec![next(), there])), [None; 2]);
        }
        assert_eq!(went(&settled(vec![next(), next()])), [Some(Some(0)); 2]);
        assert_eq!(went(&settled(vec![next(), Member::Shares((0, 1))]))[0], Some(None));
    }

    #[test]
    fn who_has_waited_long_enough_goes_with_those_who_are_there() {
        let all = vec![waits(0, "a"), Member::Works((0, 0)), waits(0, "a"), waits(0, "b")];
        let mut state = settled(all);
        assert_eq!(went(&state), [None; 4]);
        state.gives_up(0, (0, 0));
        state.settle();
        assert_eq!(went(&state), [Some(Some(0)), None, Some(Some(0)), Some(None)]);
    }

    #[test]
    fn who_was_waited_for_in_vain_is_not_waited_for_before_it_is_there() {
        let mut state = settled(vec![waits(3, "a"), Member::Works((1, 0)), Member::Sends]);
        assert_eq!(went(&state)[0], None);
        state.gives_up(0, (3, 0));
        state.settle();
        assert_eq!(went(&state)[0], Some(None));
        // By nobody: neither by that one, nor by others.
        for waiting in [0, 2] {
            for there in [Member::Works((1, 0)), Member::Works((4, 0))] {
                (state.members[0], state.members[2]) = (Member::Sends, Member::Sends);
                (state.members[1], state.members[waiting]) = (there, waits(4, "a"));
                state.settle();
                assert_eq!(went(&state)[waiting], Some(None));
            }
        }
        // When it comes to something before that, there may be more of it, which it would be waited for in vain with each.
        for (came, is_waited_for) in [(2, false), (3, true)] {
            state.arrives(1, (came, 0), offer("a", None));
            (state.members[0], state.members[1]) = (waits(4, "a"), Member::Works((came + 1, 0)));
            state.settle();
            assert_eq!(went(&state)[0].is_none(), is_waited_for, "{came}");
        }
    }

    #[test]
    fn those_who_share_wait_for_each_other_also_when_another_one_does_not() {
        let sharing = || Member::Shares((0, 0));
        let mut state = settled(vec![waits(1, "a"), sharing(), sharing()]);
        assert_eq!(went(&state)[0], None);
        state.gives_up(0, (1, 0));
        state.settle();
        assert_eq!(went(&state)[0], Some(None));
        state.members[0] = Member::Sends;
        state.arrives(1, (1, 0), offer("a", None));
        state.settle();
        assert_eq!(went(&state)[1], None);
        // That one goes on without it.
        (state.members[0], state.members[1]) = (waits(2, "a"), Member::Over);
        state.settle();
        assert_eq!(went(&state)[0], Some(None));
    }

    #[test]
    fn each_is_waited_for_in_vain_but_once() {
        let wait = Duration::from_secs(1);
        let (sharing, host) = (Sharing { wait, ..Sharing::default() }, ScriptedHost::default());
        let (one, another, _dead) = (sharing.join(), sharing.join(), sharing.join());
        let meet = |seat: &Seat<'_>, item: usize, word: &str| {
            let begun = Instant::now();
            seat.at(item);
            assert!(seat.meet(&host, *offer(word, None)).is_none());
            seat.is(Member::Sends);
            begun.elapsed()
        };
        another.is(Member::Sends);
        assert!(meet(&one, 0, "a") >= wait);
        let begun = Instant::now();
        for item in 1..20 {
            meet(&one, item, "a");
            meet(&another, item, "b");
        }
        assert!(begun.elapsed() < 5 * wait, "one of them waited again and again");
    }

    #[test]
    fn who_sends_alone_is_waited_for_again_when_it_is_through_with_that() {
        let sharing = Sharing::default();
        let (one, other) = (sharing.join(), sharing.join());
        let sends = alone(Some(&one));
        other.is(waits(0, "a"));
        assert_eq!(went(&sharing.state()), [None, Some(None)]);
        other.is(waits(0, "a"));
        drop(sends);
        assert_eq!(went(&sharing.state()), [None, Some(None)]);
        other.is(waits(0, "a"));
        assert_eq!(went(&sharing.state()), [None; 2]);
        assert!(alone(None).is_none());
    }

    #[test]
    fn who_may_take_but_little_at_a_time_holds_nobody_up() {
        let slow = Member::Waits { turn: (0, 0), offer: offer("a", Some(100)) };
        assert_eq!(went(&settled(vec![slow, waits(0, "a")])), [Some(None); 2]);
    }

    #[test]
    fn nothing_is_shared_that_nobody_runs() {
        let sharing = Sharing::default();
        let (one, _other) = (sharing.join(), sharing.join());
        one.is(waits(0, "a"));
        drop(sharing.closing());
        assert_eq!(went(&sharing.state()), [Some(None), None]);
    }

    #[test]
    fn the_sender_is_to_blame_unless_what_shares_it_failed_by_itself() {
        let (code, signal) = (Exit::Code, Exit::Signal);
        let sent = |send, share| {
            let before = vec![Completed::ended(send)];
            let spec = shared::share(Vec::new(), Duration::ZERO, Duration::ZERO);
            let chained = Chained { before, last: Completed::ended(share), bytes: None };
            matches!(ended(&spec, chained), Ended::Sent(sender) if sender.exit == send)
        };
        assert!(sent(code(0), code(0)));
        assert!(sent(code(1), signal(15)));
        assert!(sent(signal(9), signal(15)));
        assert!(sent(code(1), code(1)), "both failed: the first is the cause");
        assert!(!sent(signal(13), code(1)));
        assert!(!sent(signal(15), signal(9)));
        assert!(!sent(code(255), signal(9)), "ssh says so when it is asked to stop");
        assert!(!sent(code(0), code(1)));
    }
}
