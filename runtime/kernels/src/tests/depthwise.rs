//! The depthwise convolution and its gradient.

use super::{CLOSE, assert_close, dims, threads, values};
use crate::instructions::testing::with_each;
use crate::{Depthwise, Dims, Filter, Serial};

/// (kernel, stride, pad): the searched ones, and others that take the general path.
const FILTERS: [(i64, i64, i64); 14] = [
    (3, 1, 1),
    (5, 1, 2),
    (7, 1, 3),
    (3, 2, 1),
    (5, 2, 2),
    (7, 2, 3),
    (1, 1, 0),
    (1, 2, 0),
    (2, 1, 1),
    (4, 2, 1),
    (3, 3, 1),
    (9, 2, 4),
    (3, 2, 0),
    (2, 5, 0),
];

const SHAPES: [(usize, usize, usize, usize); 12] = [
    (1, 1, 1, 1),
    (2, 2, 2, 3),
    (1, 5, 7, 17),
    (2, 7, 5, 24),
    (1, 4, 4, 40),
    (3, 1, 5, 16),
    (2, 5, 1, 16),
    (1, 12, 9, 33),
    (2, 19, 23, 16),
    (4, 32, 32, 24),
    (40, 2, 2, 96),
    (1, 10, 40, 8),
];

fn output(filter: (i64, i64, i64), shape: Dims) -> Option<Dims> {
    Filter::new("test", filter.0, filter.1, filter.2).unwrap().output("test", shape).ok()
}

/// Calls `tap(y index, x index, w index)` for every product of the convolution.
fn each_tap((k, s, p): (i64, i64, i64), x: Dims, y: Dims, mut tap: impl FnMut(usize, usize, usize)) {
    let c = x.channels();
    let inside = |v: i64, size: usize| (0..size as i64).contains(&v).then_some(v as usize);
    for n in 0..x.batch() {
        for ho in 0..y.height() {
            for wo in 0..y.width() {
                for i in 0..k {
                    for j in 0..k {
                        let h = inside(ho as i64 * s + i - p, x.height());
                        let w = inside(wo as i64 * s + j - p, x.width());
                        let (Some(h), Some(w)) = (h, w) else { continue };
                        for ch in 0..c {
                            let at = |d: Dims, h: usize, w: usize| ((n * d.height() + h) * d.width() + w) * c + ch;
                            tap(at(y, ho, wo), at(x, h, w), (i * k + j) as usize * c + ch);
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn agrees_with_the_formulas() {
    with_each(compare_with_the_formulas);
}

fn compare_with_the_formulas() {
    let mut met = 0;
    for filter in FILTERS {
        for (n, h, w, c) in SHAPES {
            let shape = dims(n, h, w, c);
            let Some(out) = output(filter, shape) else { continue };
            let k = filter.0 as usize;
            let (x, dy, weights) = (values(1, shape.values()), values(2, out.values()), values(3, k * k * c));
            let (mut y_twin, mut dx_twin) = (vec![0.0f64; out.values()], vec![0.0f64; shape.values()]);
            each_tap(filter, shape, out, |y, x_at, w_at| {
                y_twin[y] += f64::from(x[x_at]) * f64::from(weights[w_at]);
                dx_twin[x_at] += f64::from(dy[y]) * f64::from(weights[w_at]);
            });
            let mut conv = Depthwise::new("test", Filter::new("test", filter.0, filter.1, filter.2).unwrap());
            for pool in [threads(1), threads(3)] {
                let (mut y, mut dx) = (vec![f32::NAN; out.values()], vec![f32::NAN; shape.values()]);
                conv.forward(&pool, shape, &x, &weights, &mut y).unwrap();
                assert_close(&format!("y {filter:?} {shape:?}"), &y, &y_twin, CLOSE);
                conv.gradient(&pool, shape, &dy, &weights, &mut dx).unwrap();
                assert_close(&format!("dx {filter:?} {shape:?}"), &dx, &dx_twin, CLOSE);
            }
            met += 1;
        }
    }
    assert!(met > 100, "only {met} cases have an output");
}

#[test]
fn a_plan_is_made_anew_for_another_shape() {
    let filter = Filter::new("test", 3, 2, 1).unwrap();
    let mut conv = Depthwise::new("test", filter);
    let weights = values(3, 9 * 24);
    for size in [8, 5, 8, 11] {
        let shape = dims(1, size, size, 24);
        let x = values(size as u64, shape.values());
        let out = filter.output("test", shape).unwrap();
        let (mut kept, mut fresh) = (vec![0.0; out.values()], vec![1.0; out.values()]);
        conv.forward(&Serial, shape, &x, &weights, &mut kept).unwrap();
        Depthwise::new("test", filter).forward(&Serial, shape, &x, &weights, &mut fresh).unwrap();
        assert_eq!(kept, fresh);
    }
}
