//! Global average pooling.

use super::{CLOSE, assert_close, dims, threads, values};
use crate::instructions::testing::with_each;
use crate::{global_avg_pool, global_avg_pool_grad};

#[test]
fn agrees_with_the_formulas() {
    with_each(compare_with_the_formulas);
}

fn compare_with_the_formulas() {
    for (n, h, w, c) in [(1, 1, 1, 1), (3, 2, 5, 3), (2, 7, 7, 40), (5, 4, 4, 130), (40, 7, 7, 24)] {
        let shape = dims(n, h, w, c);
        let (x, dy) = (values(1, shape.values()), values(2, n * c));
        let (mut y_twin, mut dx_twin) = (vec![0.0f64; n * c], vec![0.0f64; shape.values()]);
        for (i, &value) in x.iter().enumerate() {
            let to = i / (h * w * c) * c + i % c;
            y_twin[to] += f64::from(value) / (h * w) as f64;
            dx_twin[i] = f64::from(dy[to]) / (h * w) as f64;
        }
        for pool in [threads(1), threads(3)] {
            let (mut y, mut dx) = (vec![f32::NAN; n * c], vec![f32::NAN; shape.values()]);
            global_avg_pool(&pool, shape, &x, &mut y).unwrap();
            global_avg_pool_grad(&pool, shape, &dy, &mut dx).unwrap();
            assert_close("y", &y, &y_twin, CLOSE);
            assert_close("dx", &dx, &dx_twin, CLOSE);
        }
    }
}
