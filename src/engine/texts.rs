//! Text features of every prompt a user of the engine has: encoded once, found by token ids.

use std::collections::HashMap;
use std::sync::Arc;

use super::Prompts;
use crate::backend::TextFeatures;

/// Prompts kept although nobody uses them now, so that switching labels back costs nothing.
/// 4,096 × 512 values are 8 MB.
const CAPACITY: usize = 4096;

#[derive(Default)]
pub(super) struct Texts {
    /// By token ids; the number is the last use.
    known: HashMap<Vec<u32>, (TextFeatures, u64)>,
    /// Complete lists by identity: a stream sends the same list with every window.
    resolved: Vec<(Prompts, Arc<[TextFeatures]>)>,
    clock: u64,
}

impl Texts {
    /// The features of a complete list, in its order.
    pub(super) fn get(&self, prompts: &Prompts) -> Option<&Arc<[TextFeatures]>> {
        self.resolved.iter().find(|(list, _)| Arc::ptr_eq(list, prompts)).map(|(_, features)| features)
    }

    /// Up to `limit` prompts of the list that are not known yet, each once. None left: the list is
    /// complete, [`Texts::get`] finds it.
    pub(super) fn missing(&mut self, prompts: &Prompts, limit: usize) -> Vec<Vec<u32>> {
        self.clock += 1;
        let mut missing: Vec<Vec<u32>> = Vec::new();
        for prompt in prompts.iter() {
            if let Some((_, used)) = self.known.get_mut(prompt) {
                *used = self.clock;
            } else if missing.len() < limit && !missing.contains(prompt) {
                missing.push(prompt.clone());
            }
        }
        if missing.is_empty() && self.get(prompts).is_none() {
            let features = prompts.iter().map(|prompt| self.known[prompt].0.clone()).collect();
            // Lists nobody else holds cannot come again.
            self.resolved.retain(|(list, _)| Arc::strong_count(list) > 1);
            self.resolved.push((prompts.clone(), features));
            self.evict(prompts.len());
        }
        missing
    }

    pub(super) fn insert(&mut self, prompt: Vec<u32>, features: TextFeatures) {
        self.known.insert(prompt, (features, self.clock));
    }

    /// Back to three quarters of the capacity, longest unused first. A list larger than that stays whole.
    fn evict(&mut self, list: usize) {
        if self.known.len() <= CAPACITY.max(list) {
            return;
        }
        let mut uses: Vec<u64> = self.known.values().map(|(_, used)| *used).collect();
        uses.sort_unstable();
        let oldest = uses[uses.len() - (CAPACITY * 3 / 4).max(list).min(uses.len())];
        self.known.retain(|_, (_, used)| *used >= oldest);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(range: std::ops::Range<u32>) -> Prompts {
        range.map(|i| vec![1, i, 2]).collect()
    }

    fn fill(texts: &mut Texts, prompts: &Prompts) -> usize {
        let mut encoded = 0;
        loop {
            let missing = texts.missing(prompts, 8);
            if missing.is_empty() {
                return encoded;
            }
            encoded += missing.len();
            for prompt in missing {
                let features = TextFeatures(vec![prompt[1] as f32].into());
                texts.insert(prompt, features);
            }
        }
    }

    #[test]
    fn a_prompt_is_encoded_once_and_lists_come_in_their_order() {
        let mut texts = Texts::default();
        let (a, b) = (list(0..20), list(10..30));
        assert_eq!(fill(&mut texts, &a), 20);
        assert_eq!(fill(&mut texts, &b), 10);
        let features = texts.get(&b).unwrap();
        assert!((0..20).all(|i| features[i].0[0] == 10.0 + i as f32));
        let twice: Prompts = vec![vec![1, 99, 2], vec![1, 99, 2]].into();
        assert_eq!(fill(&mut texts, &twice), 1);
        assert_eq!(texts.get(&twice).unwrap().len(), 2);
    }

    #[test]
    fn the_cache_stays_bounded_and_forgets_the_longest_unused() {
        let mut texts = Texts::default();
        for i in 0..40 {
            fill(&mut texts, &list(i * 500..(i + 1) * 500));
            assert!(texts.known.len() <= CAPACITY);
            assert!(texts.resolved.len() <= 1);
        }
        assert_eq!(fill(&mut texts, &list(19_500..20_000)), 0);
        assert_eq!(fill(&mut texts, &list(0..10)), 10);
    }

    #[test]
    fn a_list_beyond_the_capacity_still_completes() {
        let mut texts = Texts::default();
        let all = list(0..CAPACITY as u32 + 500);
        assert_eq!(fill(&mut texts, &all), all.len());
        assert_eq!(texts.get(&all).unwrap().len(), all.len());
    }
}
