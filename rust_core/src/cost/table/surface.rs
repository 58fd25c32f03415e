//! Piecewise-bilinear functions of two numbers.

use super::curve::{Axis, check_values};
use crate::cost::operation::invalid;
use crate::error::SimError;

/// A bilinear function in each cell of a grid; the outermost cells hold what lies beyond, except
/// that nothing is continued below the first knots.
#[derive(Clone, Debug, PartialEq)]
pub struct Surface {
    x: Axis,
    y: Axis,
    columns: usize,
    /// (1, x, y, xy) coefficients of each cell, row by row.
    cells: Vec<[f64; 4]>,
}

impl Surface {
    /// A function through `values[i * y.len() + j]` at (x[i], y[j]).
    ///
    /// # Errors
    /// [`SimError::InvalidSetting`] for knots that do not rise, and for values that are missing,
    /// negative, fall along an axis or are not finite.
    pub fn new(x: Vec<f64>, y: Vec<f64>, values: &[f64]) -> Result<Self, SimError> {
        let (x, y) = (Axis::new("x", x)?, Axis::new("y", y)?);
        let (rows, columns) = (x.knots().len(), y.knots().len());
        if values.len() != rows * columns {
            return Err(invalid("values", &values.len(), "must be one for each pair of knots"));
        }
        check_values(values)?;
        let at = |i: usize, j: usize| values[i * columns + j];
        let mut cells = Vec::with_capacity((rows - 1) * (columns - 1));
        for i in 0..rows - 1 {
            for j in 0..columns - 1 {
                let corners = [at(i, j), at(i, j + 1), at(i + 1, j), at(i + 1, j + 1)];
                let sides = [x.knots()[i], x.knots()[i + 1], y.knots()[j], y.knots()[j + 1]];
                cells.push(bilinear(corners, sides)?);
            }
        }
        Ok(Self { columns: columns - 1, x, y, cells })
    }

    /// The function's value.
    #[inline]
    pub fn at(&self, x: f64, y: f64) -> f64 {
        self.row(x).at(y)
    }

    /// The function of y alone that it is at `x`.
    #[inline]
    pub(super) fn row(&self, x: f64) -> Row<'_> {
        let x = x.max(self.x.knots()[0]);
        let first = self.x.segment(x) * self.columns;
        Row { x, y: &self.y, cells: &self.cells[first..first + self.columns] }
    }
}

/// A surface at one x.
#[derive(Clone, Copy, Debug)]
pub(super) struct Row<'a> {
    x: f64,
    y: &'a Axis,
    cells: &'a [[f64; 4]],
}

impl Row<'_> {
    #[inline]
    fn at(&self, y: f64) -> f64 {
        let y = y.max(self.y.knots()[0]);
        let (constant, slope) = self.line(self.y.segment(y));
        constant + slope * y
    }

    /// (value at 0, slope) in a segment of y.
    #[inline]
    fn line(&self, segment: usize) -> (f64, f64) {
        let cell = &self.cells[segment];
        (cell[0] + cell[1] * self.x, cell[2] + cell[3] * self.x)
    }

    /// The values at numbers that rise from call to call: what [`Surface::at`] gives, without a
    /// search in each.
    #[inline]
    pub(super) fn rising(self) -> impl FnMut(f64) -> f64 {
        let lowest = self.y.knots()[0];
        let (mut constant, mut slope, mut end) = (0.0, 0.0, f64::NEG_INFINITY);
        move |y| {
            let y = y.max(lowest);
            if y >= end {
                let segment = self.y.segment(y);
                (constant, slope) = self.line(segment);
                end = self.y.end(segment);
            }
            constant + slope * y
        }
    }
}

/// Coefficients of the bilinear function with these values at (x0, y0), (x0, y1), (x1, y0) and
/// (x1, y1).
fn bilinear(corners: [f64; 4], [x0, x1, y0, y1]: [f64; 4]) -> Result<[f64; 4], SimError> {
    let [low, up, right, far] = corners;
    if up.min(right) < low || far < up.max(right) {
        let text = format!("{corners:?}");
        return Err(invalid("values", &text, "must not fall along an axis"));
    }
    let area = (x1 - x0) * (y1 - y0);
    let [low, up, right, far] = corners.map(|value| value / area);
    Ok([
        low * x1 * y1 - up * x1 * y0 - right * x0 * y1 + far * x0 * y0,
        up * y0 - low * y1 + right * y1 - far * y0,
        right * x0 - low * x1 + up * x1 - far * x0,
        low - up - right + far,
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_surface_goes_through_its_points() {
        let (x, y) = (vec![1.0, 2.0, 8.0], vec![1.0, 10.0, 11.0]);
        let values = [1.0, 2.0, 2.0, 1.5, 3.0, 4.0, 2.0, 5.0, 9.0];
        let surface = Surface::new(x.clone(), y.clone(), &values).unwrap();
        for (i, x) in x.iter().enumerate() {
            for (j, y) in y.iter().enumerate() {
                assert!((surface.at(*x, *y) - values[i * 3 + j]).abs() < 1e-12);
            }
        }
        assert!((surface.at(1.5, 5.5) - (1.0 + 2.0 + 1.5 + 3.0) / 4.0).abs() < 1e-12);
        assert!((surface.at(0.1, 0.1) - 1.0).abs() < 1e-12, "nothing is continued below");
        assert!((surface.at(8.0, 12.0) - 13.0).abs() < 1e-12, "the last cell goes on");
    }

    #[test]
    fn rising_numbers_have_the_same_values() {
        let (x, y) = (vec![1.0, 2.0, 8.0], vec![1.0, 10.0, 11.0, 15.0]);
        let values = [1.0, 2.0, 2.0, 2.5, 1.5, 3.0, 4.0, 4.0, 2.0, 5.0, 9.0, 9.5];
        let surface = Surface::new(x, y, &values).unwrap();
        for x in [0.5, 1.0, 1.7, 2.0, 7.0, 9.0] {
            let mut rising = surface.row(x).rising();
            for y in (0..200).map(|tenths| f64::from(tenths) / 10.0) {
                assert_eq!(rising(y).to_bits(), surface.at(x, y).to_bits());
            }
        }
    }

    #[test]
    fn falling_values_are_refused() {
        let axis = vec![1.0, 2.0];
        assert!(Surface::new(axis.clone(), axis.clone(), &[1.0, 2.0, 0.5, 3.0]).is_err());
        assert!(Surface::new(axis.clone(), axis, &[1.0, 2.0, 3.0]).is_err());
    }
}
