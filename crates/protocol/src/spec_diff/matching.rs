//! Which expected thing is which found thing, each counted once.
//!
//! Pairs come in ranks: by serial before by model. Within a rank as many pairs as possible are made (augmenting
//! paths), and a later rank never worsens a pair that an earlier one made.

use crate::order;

/// For each of `wanted` the found thing that it is. `rank` says how well the two fit, 0 best; `None`: not at all.
pub(super) fn matched(
    wanted: usize,
    found: usize,
    ranks: u8,
    rank: impl Fn(usize, usize) -> Option<u8>,
) -> Vec<Option<usize>> {
    let mut pairs = Pairs { rank, of_wanted: vec![None; wanted], of_found: vec![None; found] };
    for allowed in 0..ranks {
        for one in 0..wanted {
            if pairs.of_wanted[one].is_none() {
                pairs.place(one, allowed, &mut vec![false; found]);
            }
        }
    }
    pairs.of_wanted.into_iter().map(|pair| pair.map(|(found, _)| found)).collect()
}

struct Pairs<R> {
    rank: R,
    /// The found thing of each wanted one, and how well they fit.
    of_wanted: Vec<Option<(usize, u8)>>,
    of_found: Vec<Option<usize>>,
}

impl<R: Fn(usize, usize) -> Option<u8>> Pairs<R> {
    /// Gives `one` a found thing that fits at least as well as `allowed`, moving others where need be.
    fn place(&mut self, one: usize, allowed: u8, tried: &mut Vec<bool>) -> bool {
        let mut fitting: Vec<(bool, u8, usize)> = (0..self.of_found.len())
            .filter(|found| !tried[*found])
            .filter_map(|found| Some((self.of_found[found].is_some(), (self.rank)(one, found)?, found)))
            .filter(|(_, rank, _)| *rank <= allowed)
            .collect();
        // What is free comes first, so that nothing is moved without need.
        order::sort(&mut fitting);
        for (_, rank, found) in fitting {
            if std::mem::replace(&mut tried[found], true) {
                continue;
            }
            let is_free = match self.of_found[found] {
                None => true,
                Some(holder) => {
                    let held = self.of_wanted[holder].map_or(0, |(_, rank)| rank);
                    self.place(holder, held, tried)
                }
            };
            if is_free {
                self.of_found[found] = Some(one);
                self.of_wanted[one] = Some((found, rank));
                return true;
            }
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_choosy_one_gets_its_place_from_one_that_can_move() {
        // The first fits both, the second the first found thing alone.
        let fits = |wanted: usize, found: usize| (wanted == 0 || found == 0).then_some(0);
        assert_eq!(matched(2, 2, 1, fits), [Some(1), Some(0)]);
    }

    #[test]
    fn a_better_pair_is_never_given_up_for_one_more() {
        // The first fits thing 0 well and thing 1 badly; the second fits thing 0 badly.
        let rank = |wanted: usize, found: usize| match (wanted, found) {
            (0, 0) => Some(0),
            (0, 1) | (1, 0) => Some(1),
            (_, _) => None,
        };
        assert_eq!(matched(2, 2, 2, rank), [Some(0), None]);
    }

    #[test]
    fn nothing_is_counted_twice() {
        assert_eq!(matched(3, 2, 1, |_, _| Some(0)).iter().flatten().count(), 2);
        assert_eq!(matched(0, 2, 1, |_, _| Some(0)), []);
        assert_eq!(matched(2, 0, 1, |_, _| Some(0)), [None, None]);
    }
}
