//! Rules that can be switched off, so that the swarms can show that they would notice.
//!
//! Without the feature `sabotage` a `Sabotage` has no bytes and every question to it is the
//! constant `false`. Only `tests/sabotage.rs` (sessions) and `tests/agent_sabotage.rs` (agents) are
//! built with it.

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
    /// The number of a flow that is over does not open another.
    NumbersOnce,
    /// A reset is repeated until it is answered.
    ResetsRepeated,
    /// Who asks about a flow that is over is answered.
    OverIsSaid,
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
}

impl Rule {
    /// Those of a session.
    pub const SESSION: [Rule; 10] = [
        Rule::KeptUntilAcked,
        Rule::LostGoesAgain,
        Rule::SilenceIsAsked,
        Rule::DuplicatesNoticed,
        Rule::EarlyWaits,
        Rule::EndAfterAll,
        Rule::CreditRespected,
        Rule::NumbersOnce,
        Rule::ResetsRepeated,
        Rule::OverIsSaid,
    ];

    /// Those of an agent.
    pub const AGENT: [Rule; 20] = [
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
