//! Rules that can be switched off, so that the swarms can show that they would notice.
//!
//! Without the feature `sabotage` a `Sabotage` has no bytes and every question to it is the
//! constant `false`. Only `tests/sabotage.rs` (sessions) and `tests/agent_sabotage.rs` (agents) are
//! built with it, and for what carries packets `tests/sabotage.rs` of `ringway-wan`.
//!
//! What was decided before the first line, because it is costly to change, and the rules that it
//! has become:
//!
//! ```text
//! frames: byte offsets, any cuts, what may    CutsAnywhere EarlyWaits DuplicatesNoticed
//!   be skipped, a version                     UnknownSkipped VersionsAgree
//! a byte is kept until the other agent has    KeptUntilAcked AcksRepeated SilenceIsAsked
//!   it; an end is the last; what is over is   EndAfterAll ResetsRepeated OverIsSaid NumbersOnce
//!   said, also after a restart                GoneIsSaid GivenUpIsSaid
//! handover: what is on a carrier that is      LostGoesAgain SuspectsDoubted SilentClosed
//!   suspect or dead goes by another           LeaveLast BothLeave PurposeKnown
//! shards: a flow has one owner                HandedOver OneSession LivingGoesOn
//! credit: absolute, from one budget, none     CreditRespected UnreadWaits MemoryBounded
//!   for who does not read                     RefusedNotAcked RefusedNotReported WindowsGrow
//! relays: sessions end at agents alone, and   JoinsProved NumbersOnce (there is no relay yet)
//!   name their flows
//! truth: users hear why a flow failed         CodesTold
//! ```
//!
//! No rule, but stories: a carrier that crawls (`session_tests.rs`), features and kinds of later
//! versions (`hello.rs`, `frame.rs`), the words of SOCKS5 and HTTP for each failure (`socks.rs`,
//! `proxy.rs`), no writes across cores (`shards/runtime`).
//!
//! What carries packets has the rules of [`Rule::PATH`], and an agent's carriers of them those of
//! [`Rule::PACKETS`]:
//!
//! ```text
//! repair: copies, more each round, apart      CopiesGrow ThirdAsAffordable CopiesApart
//! numbers: what goes again has a new one      NumbersNew
//! loss by time, which learns                  LossTakesTime LateIsHeard LateIsWaitedFor
//! reports: the newest again, older in turn,   NewestAgain OlderInTurn BaseIsSenders
//!   from the sender's base, the host's drops    HostDropsApart HeldIsNoTrip ReportsSpaced
//!   apart, not often, a hundredth at most       ReportsBounded LastIsSaidTwice
//! who runs dry asks, with the tail            SilenceIsProbed TailGoesAgain SilenceGivesUp
//! windows: grown on demand, bounded           WindowsGrow UnreadWaits MemoryBounded
//! rate: the fastest of some rounds, what is   FastestCounts LostHasNotPassed IdleSaysNothing
//!   lost by itself does not count               LossIsFloored MoreIsTried LessAfterMore NeverShut
//! floor: the middle, of an empty path         FloorIsMiddle FloorIsOfEmpty LeastIsFloor
//! excess: beyond chance, twice, tested        ChanceIsNoExcess ExcessComesTwice ExcessIsTested
//!   and a little where nothing is lost          LittleCountsWhenClean
//! a standing queue, beyond jitter             QueueDrained JitterIsNoQueue RoundIsNoPath
//! competing, and trying without               CrowdedCompetes CompetingEnds PressedHolds
//!                                               PressedKeeps EmptyPathKept
//! repairs from the same pacer, first          PacketsPaced LostFirst
//! start by trains, losses forgiven            ShortTrainsSayNothing SlowestTrainCounts
//!                                               TrainsQueueDrains FirstLossesForgiven
//!                                               PolicedIsSeen
//! liveness: any packet, asked when idle,      KeptAlive SilenceIsDeath SuspectsRevive
//!   dead stops new data, alive revives it       PacketsProved AloneIsAsked FarewellSaid
//! a moved path keeps its session              MovedForgets PacketsFollow NewestMoves WaysAnswer
//!                                               WaysAreKnown PacketsHandedOver
//! how long datagrams may be                   NarrowerIsFound LossIsNotLength SilenceIsNotLength
//! packets first, records where those are      PacketsFirst HeldBackLeaves FillerFirst FillerIsOurs
//!   held back                                   PacketsTriedAgain SilentRecordsLeft FullIsAsked
//! ```
//!
//! The pool is `OpenedOnDemand`, `SpawnBounded` and `IdleClosed`; keys over time are
//! `KeysAnnounced`, `ResponderWaits`, `OffersRepeated` and `FormerKept`; who is let in are
//! `KnownAlone`, `SecondSecret`, `MessagesOnce`, `JoinsProved` and `TrustEnds`.

use crate::detour::Advice as Detour;
use crate::frame;
use crate::pool::Advice;
use crate::violation::Violation;

/// A rule of the tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// A byte is kept until the other agent has said that it has it.
    KeptUntilAcked,
    /// What was on a carrier that is lost goes again.
    LostGoesAgain,
    /// Who waits for long to hear of what it sent asks.
    SilenceIsAsked,
    /// What comes twice is delivered once.
    DuplicatesNoticed,
    /// What comes early waits for what is before it.
    EarlyWaits,
    /// A stream's end is heard after all its bytes.
    EndAfterAll,
    /// Nothing is sent beyond the receiver's credit.
    CreditRespected,
    /// What there was no room for is not acknowledged.
    RefusedNotAcked,
    /// A packet with something that there was no room for is not reported as come.
    RefusedNotReported,
    /// The number of a flow that is over does not open another.
    NumbersOnce,
    /// A reset is repeated until it is answered.
    ResetsRepeated,
    /// Who asks about a flow that is over is answered.
    OverIsSaid,
    /// What was acknowledged by a carrier that is lost is acknowledged again, and so is what comes
    /// twice.
    AcksRepeated,
    /// What is on a carrier that does not answer goes by another one at once.
    SuspectsDoubted,
    /// A piece that begins in what is known brings only what is new.
    CutsAnywhere,
    /// A frame that is not known and may be skipped is skipped.
    UnknownSkipped,
    /// A flow that is not read is given no more credit.
    UnreadWaits,
    /// A flow that uses up its window is given a wider one.
    WindowsGrow,
    /// No more is held of what comes than there is room for.
    MemoryBounded,
    /// Why a flow was reset is told to its other end.
    CodesTold,
    /// A carrier leaves when nothing that went by it is missing.
    LeaveLast,
    /// Who proves to be somebody that the site does not know is not answered.
    KnownAlone,
    /// A message that came before is not answered.
    MessagesOnce,
    /// Who joins a session shows that they have its secret.
    JoinsProved,
    /// Who has not come in within their time is closed.
    StrangersDropped,
    /// Connections that have not proved themselves are bounded.
    HalfOpenBounded,
    /// A peer that shows a key which is its own no more has no session.
    TrustEnds,
    /// A carrier that comes to a shard without its session is given to the one that has it.
    HandedOver,
    /// Who asks for a session that lives goes on with it.
    LivingGoesOn,
    /// A shard of a peer has one session: a new one ends the old one.
    OneSession,
    /// Flows of which the far agent knows nothing any more are reset.
    GoneIsSaid,
    /// Who could not join asks whether the session lives.
    DoubtAsks,
    /// Flows wait until the far agent has said that it has the session.
    FirstOnTrial,
    /// A carrier that does not answer for long is closed.
    SilentClosed,
    /// Who is asked and does not answer is not waited for.
    AnswersTimed,
    /// Flows without carriers are given up after the time to wait.
    StrandedEnds,
    /// Flows that were given up here are reset there, too.
    GivenUpIsSaid,
    /// Attempts that come to nothing are spaced.
    AttemptsSpaced,
    /// A record under new keys comes behind one that says so.
    KeysAnnounced,
    /// The responder sends under new keys after the initiator has.
    ResponderWaits,
    /// New keys are offered until they are answered.
    OffersRepeated,
    /// The former epoch is kept for carriers that join under it.
    FormerKept,
    /// Reports say the newest numbers several times running.
    NewestAgain,
    /// Reports say older numbers in turn.
    OlderInTurn,
    /// The sender alone says from where on it wants to hear.
    BaseIsSenders,
    /// What goes again goes under a new number. (No key seals two packets under one, so that only
    /// simulations switch it off: then nobody notices that what went again is lost again.)
    NumbersNew,
    /// What is missing is lost when something that was sent later, by some time, has come.
    LossTakesTime,
    /// Who hears that something came which was given up waits longer from then on.
    LateIsHeard,
    /// What was given up is asked about for some time after.
    LateIsWaitedFor,
    /// What is lost again and again goes in more copies.
    CopiesGrow,
    /// The less is lost, the more copies the third round has.
    ThirdAsAffordable,
    /// Copies are apart from each other.
    CopiesApart,
    /// Who hears nothing for long sends something to hear of the rest.
    SilenceIsProbed,
    /// A probe carries again what was sent last.
    TailGoesAgain,
    /// After some silences what is on its way is given up.
    SilenceGivesUp,
    /// What a path loses by itself slows nobody down.
    LossIsFloored,
    /// A queue that stands is worked off.
    QueueDrained,
    /// Delay that varies by itself is no queue.
    JitterIsNoQueue,
    /// What the receiver waited before it reported is no part of a round trip.
    HeldIsNoTrip,
    /// What was measured says nothing of another path.
    MovedForgets,
    /// Who does not get rid of a queue is not alone, and claims a part.
    CrowdedCompetes,
    /// Who had less to send than goes has not measured the path.
    IdleSaysNothing,
    /// Packets leave one after the other, and not a window at once.
    PacketsPaced,
    /// A train that was hardly spread says nothing: somebody may have gathered its packets.
    ShortTrainsSayNothing,
    /// Of a train that was spread less than a shorter one the shorter one is believed.
    SlowestTrainCounts,
    /// More is tried now and then than goes.
    MoreIsTried,
    /// Of the last rounds the fastest says how fast a path is.
    FastestCounts,
    /// After more as much less is sent, so that what has queued drains.
    LessAfterMore,
    /// What a path loses by itself is the middle of what it lost of late, not the least.
    FloorIsMiddle,
    /// More loss than chance brings, and no less, is excess.
    ChanceIsNoExcess,
    /// Excess is excess when it comes twice.
    ExcessComesTwice,
    /// Whose excess is is tested before anybody slows down.
    ExcessIsTested,
    /// Of a round in which a queue stood, or more was tried, nothing is learned about the path.
    FloorIsOfEmpty,
    /// What the receiver's host drops is not what the path loses.
    HostDropsApart,
    /// Before anything is known of a path, what is lost is taken for its own.
    FirstLossesForgiven,
    /// On a path that loses nothing, a little loss is somebody's queue.
    LittleCountsWhenClean,
    /// What was lost beyond the path's own loss has not gone by.
    LostHasNotPassed,
    /// Now and then it is tried whether the others have gone.
    CompetingEnds,
    /// Who gives way in vain gives way no more.
    PressedHolds,
    /// Nor does that make their own part next to nothing.
    PressedKeeps,
    /// What an empty path is like is not forgotten beside others.
    EmptyPathKept,
    /// What a train has queued says nothing of the path.
    TrainsQueueDrains,
    /// Beside others, a path of which nothing is known loses no more than where least is lost.
    LeastIsFloor,
    /// One round does not make a path next to nothing.
    RoundIsNoPath,
    /// However little goes by, a little is sent.
    NeverShut,
    /// Reports are a small part of what comes.
    ReportsBounded,
    /// Reports are apart from each other.
    ReportsSpaced,
    /// What is said of the last of many packets is said twice.
    LastIsSaidTwice,
    /// Where most of what is tried is lost, no more is tried.
    PolicedIsSeen,
    /// What was lost goes before what is new.
    LostFirst,
    /// Who has a site's key and not the second secret that goes with it is not let in.
    SecondSecret,
    /// Who speaks another version is not answered.
    VersionsAgree,
    /// A carrier is closed when both ends have left it.
    BothLeave,
    /// A carrier that is closed on purpose does not count as lost.
    PurposeKnown,
    /// Where more carriers carry more, more are opened.
    OpenedOnDemand,
    /// A session has as many carriers as the configuration says, at most.
    SpawnBounded,
    /// Carriers that are not needed are closed.
    IdleClosed,
    /// While packets get through, streams go by them alone.
    PacketsFirst,
    /// A carrier of packets is used once the other end has said that they come.
    PacketsProved,
    /// A packet that comes to a shard without its session is given to the one that has it.
    PacketsHandedOver,
    /// Packets go to where the newest came from.
    PacketsFollow,
    /// Nothing but a packet that is newer than all before moves a path.
    NewestMoves,
    /// Where nobody has answered hardly anything is sent.
    WaysAnswer,
    /// Who is heard from two addresses in turn is answered at either.
    WaysAreKnown,
    /// Who dialled says something now and then by packets.
    KeptAlive,
    /// Where a path passes datagrams no more that it did pass, shorter ones are sent.
    NarrowerIsFound,
    /// A datagram that is lost need not have been too long.
    LossIsNotLength,
    /// Where nothing is heard at all, a question's length is not why.
    SilenceIsNotLength,
    /// A path that is silent for long carries nothing new.
    SilenceIsDeath,
    /// It does again once somebody is heard.
    SuspectsRevive,
    /// Where packets are held back, streams go by records.
    HeldBackLeaves,
    /// Not before bytes that say nothing were faster there.
    FillerFirst,
    /// What filler does to the path is not taken for the work of others.
    FillerIsOurs,
    /// Now and then packets are tried again.
    PacketsTriedAgain,
    /// Who stops, or gives packets up, says so by them.
    FarewellSaid,
    /// Where no carrier of records answers, streams go by packets, though those were held back.
    SilentRecordsLeft,
    /// A carrier that takes nothing more is asked whether it lives.
    FullIsAsked,
    /// Where no records are left, packets are asked whether they still get through.
    AloneIsAsked,
}

impl Rule {
    /// Those of a session.
    pub const SESSION: [Rule; 21] = [
        Rule::KeptUntilAcked,
        Rule::LostGoesAgain,
        Rule::SilenceIsAsked,
        Rule::DuplicatesNoticed,
        Rule::EarlyWaits,
        Rule::EndAfterAll,
        Rule::CreditRespected,
        Rule::RefusedNotAcked,
        Rule::RefusedNotReported,
        Rule::NumbersOnce,
        Rule::ResetsRepeated,
        Rule::OverIsSaid,
        Rule::AcksRepeated,
        Rule::SuspectsDoubted,
        Rule::CutsAnywhere,
        Rule::UnknownSkipped,
        Rule::UnreadWaits,
        Rule::WindowsGrow,
        Rule::MemoryBounded,
        Rule::CodesTold,
        Rule::LeaveLast,
    ];

    /// Those of what carries packets.
    pub const PATH: [Rule; 46] = [
        Rule::NewestAgain,
        Rule::OlderInTurn,
        Rule::BaseIsSenders,
        Rule::NumbersNew,
        Rule::LossTakesTime,
        Rule::LateIsHeard,
        Rule::LateIsWaitedFor,
        Rule::CopiesGrow,
        Rule::ThirdAsAffordable,
        Rule::CopiesApart,
        Rule::SilenceIsProbed,
        Rule::TailGoesAgain,
        Rule::SilenceGivesUp,
        Rule::LossIsFloored,
        Rule::QueueDrained,
        Rule::JitterIsNoQueue,
        Rule::HeldIsNoTrip,
        Rule::MovedForgets,
        Rule::CrowdedCompetes,
        Rule::IdleSaysNothing,
        Rule::PacketsPaced,
        Rule::ShortTrainsSayNothing,
        Rule::SlowestTrainCounts,
        Rule::MoreIsTried,
        Rule::FastestCounts,
        Rule::LessAfterMore,
        Rule::FloorIsMiddle,
        Rule::ChanceIsNoExcess,
        Rule::ExcessComesTwice,
        Rule::ExcessIsTested,
        Rule::FloorIsOfEmpty,
        Rule::HostDropsApart,
        Rule::FirstLossesForgiven,
        Rule::LittleCountsWhenClean,
        Rule::LostHasNotPassed,
        Rule::CompetingEnds,
        Rule::PressedHolds,
        Rule::PressedKeeps,
        Rule::EmptyPathKept,
        Rule::TrainsQueueDrains,
        Rule::LeastIsFloor,
        Rule::RoundIsNoPath,
        Rule::NeverShut,
        Rule::ReportsBounded,
        Rule::ReportsSpaced,
        Rule::LastIsSaidTwice,
    ];

    /// Those of an agent.
    pub const AGENT: [Rule; 28] = [
        Rule::KnownAlone,
        Rule::MessagesOnce,
        Rule::JoinsProved,
        Rule::StrangersDropped,
        Rule::HalfOpenBounded,
        Rule::TrustEnds,
        Rule::HandedOver,
        Rule::LivingGoesOn,
        Rule::OneSession,
        Rule::GoneIsSaid,
        Rule::DoubtAsks,
        Rule::FirstOnTrial,
        Rule::SilentClosed,
        Rule::AnswersTimed,
        Rule::StrandedEnds,
        Rule::GivenUpIsSaid,
        Rule::AttemptsSpaced,
        Rule::KeysAnnounced,
        Rule::ResponderWaits,
        Rule::OffersRepeated,
        Rule::FormerKept,
        Rule::SecondSecret,
        Rule::VersionsAgree,
        Rule::BothLeave,
        Rule::PurposeKnown,
        Rule::OpenedOnDemand,
        Rule::SpawnBounded,
        Rule::IdleClosed,
    ];

    /// Those of an agent's carriers of packets.
    pub const PACKETS: [Rule; 23] = [
        Rule::PacketsFirst,
        Rule::PacketsProved,
        Rule::PacketsHandedOver,
        Rule::PacketsFollow,
        Rule::NewestMoves,
        Rule::WaysAnswer,
        Rule::WaysAreKnown,
        Rule::KeptAlive,
        Rule::NarrowerIsFound,
        Rule::LossIsNotLength,
        Rule::SilenceIsNotLength,
        Rule::SilenceIsDeath,
        Rule::SuspectsRevive,
        Rule::HeldBackLeaves,
        Rule::FillerFirst,
        Rule::FillerIsOurs,
        Rule::PacketsTriedAgain,
        Rule::FarewellSaid,
        Rule::SilentRecordsLeft,
        Rule::FullIsAsked,
        Rule::AloneIsAsked,
        Rule::PolicedIsSeen,
        Rule::LostFirst,
    ];
}

/// Which rule is switched off, if any.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Sabotage {
    #[cfg(feature = "sabotage")]
    pub(crate) rule: Option<Rule>,
}

impl Sabotage {
    /// Whether the rule is switched off.
    #[inline(always)]
    pub(crate) fn breaks(self, rule: Rule) -> bool {
        #[cfg(feature = "sabotage")]
        return self.rule == Some(rule);
        #[cfg(not(feature = "sabotage"))]
        {
            let _ = rule;
            false
        }
    }

    /// A record's text, if its reader knows all of its frames or may skip them.
    #[inline(always)]
    pub(crate) fn known(self, text: &[u8]) -> Result<&[u8], Violation> {
        let skips = text.first().is_some_and(|kind| kind & frame::IGNORABLE != 0);
        if skips && self.breaks(Rule::UnknownSkipped) {
            Err(Violation::Malformed)
        } else {
            Ok(text)
        }
    }

    /// What is to be done about carriers.
    #[inline(always)]
    pub(crate) fn advice(self, advice: Advice) -> Advice {
        match advice {
            Advice::Open if self.breaks(Rule::OpenedOnDemand) => Advice::Stay,
            Advice::Retire if self.breaks(Rule::IdleClosed) => Advice::Stay,
            advice => advice,
        }
    }

    /// What is to be done about packets that may be held back.
    #[inline(always)]
    pub(crate) fn detour(self, advice: Detour) -> Detour {
        match advice {
            Detour::Look(_) if self.breaks(Rule::HeldBackLeaves) => Detour::Stay,
            Detour::Look(_) if self.breaks(Rule::FillerFirst) => Detour::Leave,
            Detour::TryAgain if self.breaks(Rule::PacketsTriedAgain) => Detour::Stay,
            advice => advice,
        }
    }

    /// `lawful`, unless the rule is switched off.
    #[inline(always)]
    pub(crate) fn unless<T>(self, rule: Rule, broken: T, lawful: T) -> T {
        if self.breaks(rule) { broken } else { lawful }
    }
}

#[cfg(not(feature = "sabotage"))]
const _: () = assert!(size_of::<Sabotage>() == 0, "a product has nothing to switch off");

#[cfg(feature = "sabotage")]
impl crate::Session {
    /// Switches one rule off, for good; before the first flow.
    pub fn break_rule(&mut self, rule: Rule) {
        self.sabotage.rule = Some(rule);
    }
}

#[cfg(feature = "sabotage")]
impl crate::Agent {
    /// Switches one rule off, for good; before anything else.
    pub fn break_rule(&mut self, rule: Rule) {
        self.sabotage.rule = Some(rule);
    }
}

#[cfg(feature = "sabotage")]
impl<F: Copy> crate::path::Sender<F> {
    /// Switches one rule off, for good; before the first packet.
    pub fn break_rule(&mut self, rule: Rule) {
        self.set_sabotage(Sabotage { rule: Some(rule) });
    }
}

#[cfg(feature = "sabotage")]
impl crate::path::Arrivals {
    /// Switches one rule off, for good; before the first packet.
    pub fn break_rule(&mut self, rule: Rule) {
        self.sabotage.rule = Some(rule);
    }
}
