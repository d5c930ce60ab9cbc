//! Rules that can be switched off, so that the swarm can show that it would notice.
//!
//! Without the feature `sabotage` a [`Sabotage`] has no bytes and every question to it is the
//! constant `false`. Only `tests/sabotage.rs` is built with it.

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
}

impl Rule {
    /// All of them.
    pub const ALL: [Rule; 10] = [
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
