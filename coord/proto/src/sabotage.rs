//! Rules that can be switched off, so that the simulator can show that it would notice.
//!
//! Without the feature `sabotage` a [`Sabotage`] has no bytes and every question to it is the
//! constant `false`: a product cannot break a rule, nor spend an instruction on not doing so.
//! Only `tools/sim` enables the feature, and only on demand.

/// A rule of the coordinator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// An opening is answered only when every shard has attached the session.
    AttachFirst,
    /// The names of an ended session are free.
    DeadOwnNothing,
    /// A handle is used again only when every shard has swept it.
    SweptEverywhere,
    /// Lease time stands still while the shard does.
    StallsDoNotCount,
    /// Renewals of a turn apply before its expiries.
    RenewalsFirst,
    /// A session is taken over only with its secret.
    SecretsChecked,
    /// Units are answered in the order of their connection.
    AnswersInOrder,
    /// A lease is granted only when the state directory allows for it.
    LeaseOnDisk,
    /// The home of a session is told of its lost connection.
    ClosedIsTold,
    /// What comes late for a connection finds that it is gone.
    ConnsHaveGenerations,
    /// Every grant takes the next number.
    TokensGrow,
    /// A name goes to whoever waits longest.
    FirstComeFirstServed,
    /// It goes there in the step in which it becomes free.
    HandOverAtOnce,
    /// No more hold a counting name than it has permits.
    PermitsCounted,
    /// Nobody who does not wait overtakes who does, though the mode would fit.
    WritersNotStarved,
    /// Nothing is handed to a session that has ended.
    DeadWaitersSkipped,
    /// Those behind a session that has ended are served when it is found dead.
    DeadMakeRoom,
    /// A cancelled wait is over.
    CancelEndsTheWait,
    /// A wait whose time has come is over.
    WaitsEndInTime,
    /// A transfer is a grant.
    TransferTakesANewToken,
    /// Metadata belongs to a grant.
    MetaGoesWithTheGrant,
    /// A message is one of its source's holder only under the token.
    OldTokensFenced,
    /// A receipt says what became of the message.
    ReceiptsTellTheEnd,
    /// Messages to one session arrive in their order.
    MessagesInOrder,
    /// At most once.
    MessagesOnce,
    /// Who has too much unread gets no messages.
    FullReceiversSpared,
    /// All holders of a shared name get a message to it.
    EveryHolderHears,
    /// An identity reaches its own sessions only.
    PrincipalsApart,
    /// A watcher hears of what it missed.
    SkippedIsSaid,
    /// Nobody goes on from a number of another life.
    GapIsSaid,
    /// Who goes on hears what happened meanwhile.
    ResumeTellsMissed,
    /// A page of a snapshot travels behind all changes of before.
    SnapshotBehindItsPast,
    /// Who was passed over hears the newest once it has read.
    SlowAreToldLater,
    /// A name that was given back is told to be free.
    ReleasesAreTold,
    /// What is watched no more is told no more.
    UnwatchEnds,
    /// A frame that a lane was taken up to is not executed again.
    LanesExecuteOnce,
    /// A lane is opened again only when all that was asked by it is answered.
    LanesWaitForTheirUnits,
    /// What a connection that is gone would have heard is remembered.
    OrphansRemembered,
    /// Nobody waits on a connection whose client sends nothing more.
    WaitsEndWithTheirConnection,
    /// Who blocks hears of its grant.
    BlockedAreAnswered,
    /// A name that is given back makes room in its namespace.
    CreditsGivenBack,
    /// No name is granted beyond the quota of its namespace.
    QuotasHold,
}

impl Rule {
    /// All of them.
    pub const ALL: [Rule; 42] = [
        Rule::AttachFirst,
        Rule::DeadOwnNothing,
        Rule::SweptEverywhere,
        Rule::StallsDoNotCount,
        Rule::RenewalsFirst,
        Rule::SecretsChecked,
        Rule::AnswersInOrder,
        Rule::LeaseOnDisk,
        Rule::ClosedIsTold,
        Rule::ConnsHaveGenerations,
        Rule::TokensGrow,
        Rule::FirstComeFirstServed,
        Rule::HandOverAtOnce,
        Rule::PermitsCounted,
        Rule::WritersNotStarved,
        Rule::DeadWaitersSkipped,
        Rule::DeadMakeRoom,
        Rule::CancelEndsTheWait,
        Rule::WaitsEndInTime,
        Rule::TransferTakesANewToken,
        Rule::MetaGoesWithTheGrant,
        Rule::OldTokensFenced,
        Rule::ReceiptsTellTheEnd,
        Rule::MessagesInOrder,
        Rule::MessagesOnce,
        Rule::FullReceiversSpared,
        Rule::EveryHolderHears,
        Rule::PrincipalsApart,
        Rule::SkippedIsSaid,
        Rule::GapIsSaid,
        Rule::ResumeTellsMissed,
        Rule::SnapshotBehindItsPast,
        Rule::SlowAreToldLater,
        Rule::ReleasesAreTold,
        Rule::UnwatchEnds,
        Rule::LanesExecuteOnce,
        Rule::LanesWaitForTheirUnits,
        Rule::OrphansRemembered,
        Rule::WaitsEndWithTheirConnection,
        Rule::BlockedAreAnswered,
        Rule::CreditsGivenBack,
        Rule::QuotasHold,
    ];
}

/// Which rule is switched off, if any.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Sabotage {
    #[cfg(feature = "sabotage")]
    rule: Option<Rule>,
}

impl Sabotage {
    /// None is.
    pub(crate) const NONE: Self = Self {
        #[cfg(feature = "sabotage")]
        rule: None,
    };

    /// One rule is switched off.
    #[cfg(feature = "sabotage")]
    pub(crate) const fn of(rule: Rule) -> Self {
        Self { rule: Some(rule) }
    }

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
impl<R: ringway_core::Region, A: crate::access::Access> crate::shard::Shard<R, A> {
    /// Switches one rule off, for good.
    pub fn break_rule(&mut self, rule: Rule) {
        let sabotage = Sabotage::of(rule);
        self.sabotage = sabotage;
        self.clock.sabotage = sabotage;
        self.names.sabotage = sabotage;
        self.names.notices.sabotage = sabotage;
        self.names.feeds.sabotage = sabotage;
        self.sessions.sabotage = sabotage;
    }
}
