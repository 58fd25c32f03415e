//! Columns that may lose their first entries, while the others keep their numbers.

use std::ops::{Index, IndexMut};

/// A column by numbers of u32: requests, or steps of an engine. A run in one piece keeps all of
/// it; a streamed one drops what is final from the front.
#[derive(Clone, Debug)]
pub struct Rows<T> {
    /// Number of the first value that is stored.
    stored_from: u32,
    /// Number of the first value that has not been dropped.
    first: u32,
    values: Vec<T>,
}

impl<T> Default for Rows<T> {
    fn default() -> Self {
        Self { stored_from: 0, first: 0, values: Vec::new() }
    }
}

impl<T> Rows<T> {
    /// The number after the last one.
    pub(crate) fn end(&self) -> usize {
        self.stored_from as usize + self.values.len()
    }

    /// The number of the first value.
    pub(crate) const fn first(&self) -> u32 {
        self.first
    }

    #[inline]
    pub(crate) fn get(&self, number: u32) -> Option<&T> {
        // Wraps past every length for numbers that were dropped.
        self.values.get(number.wrapping_sub(self.stored_from) as usize)
    }

    /// All values that were not dropped, in order.
    pub fn as_slice(&self) -> &[T] {
        &self.values[(self.first - self.stored_from) as usize..]
    }

    /// Drop all values before that number. The memory is given back in pieces as large as what
    /// stays, so that each value moves once or twice in its life.
    pub(crate) fn drop_before(&mut self, number: u32) {
        self.first = number.max(self.first);
        let dropped = (self.first - self.stored_from) as usize;
        if dropped > self.values.len() / 2 {
            self.values.drain(..dropped);
            self.stored_from = self.first;
        }
    }
}

impl<T: Clone> Rows<T> {
    /// `count` times the same.
    pub(crate) fn filled(value: T, count: usize) -> Self {
        Self { stored_from: 0, first: 0, values: vec![value; count] }
    }

    /// Add `count` times the same.
    pub(crate) fn extend_with(&mut self, value: T, count: usize) {
        self.values.resize(self.values.len() + count, value);
    }
}

impl<T> From<Vec<T>> for Rows<T> {
    fn from(values: Vec<T>) -> Self {
        Self { stored_from: 0, first: 0, values }
    }
}

impl<T> Extend<T> for Rows<T> {
    fn extend<I: IntoIterator<Item = T>>(&mut self, values: I) {
        self.values.extend(values);
    }
}

impl<T> Index<u32> for Rows<T> {
    type Output = T;

    #[inline]
    fn index(&self, number: u32) -> &T {
        &self.values[number.wrapping_sub(self.stored_from) as usize]
    }
}

impl<T> IndexMut<u32> for Rows<T> {
    #[inline]
    fn index_mut(&mut self, number: u32) -> &mut T {
        &mut self.values[number.wrapping_sub(self.stored_from) as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stays_keeps_its_number() {
        let mut rows: Rows<u32> = (0..10).collect::<Vec<_>>().into();
        for first in [3, 4, 8, 2] {
            rows.drop_before(first);
        }
        rows.extend(10..13);
        assert_eq!(rows.as_slice(), [8, 9, 10, 11, 12]);
        assert_eq!((rows[8], rows[12], rows.get(13), rows.end()), (8, 12, None, 13));
    }
}
