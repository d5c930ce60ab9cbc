//! Which core a shard runs on.

/// Which cores shards are pinned to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum PinPolicy {
    /// The cores this process may use, in their order, one shard each. Fewer cores than shards is
    /// an error.
    #[default]
    Auto,
    /// These cores, one per shard. Fewer cores than shards is an error.
    Cores(Vec<usize>),
    /// No pinning: shards share whatever there is.
    Off,
}

impl PinPolicy {
    /// The core of each shard, or how many cores there are if that is too few.
    pub(crate) fn assign(
        &self,
        shards: usize,
        available: &[usize],
    ) -> Result<Vec<Option<usize>>, usize> {
        let cores = match self {
            PinPolicy::Off => return Ok(vec![None; shards]),
            PinPolicy::Auto => available,
            PinPolicy::Cores(cores) => cores.as_slice(),
        };
        if cores.len() < shards {
            return Err(cores.len());
        }
        Ok(cores[..shards].iter().copied().map(Some).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Cores are given out in order; too few are told apart from none wanted.
    #[test]
    fn cores_are_assigned_or_missed() {
        let cores = [2, 5];
        assert_eq!(PinPolicy::Auto.assign(2, &cores), Ok(vec![Some(2), Some(5)]));
        assert_eq!(PinPolicy::Auto.assign(3, &cores), Err(2));
        assert_eq!(PinPolicy::Off.assign(3, &cores), Ok(vec![None; 3]));
        assert_eq!(PinPolicy::Cores(vec![7]).assign(1, &cores), Ok(vec![Some(7)]));
        assert_eq!(PinPolicy::Cores(vec![7]).assign(2, &cores), Err(1));
    }
}
