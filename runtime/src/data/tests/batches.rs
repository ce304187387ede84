//! Batches: what is in them, and that they depend on nothing but data, seed and step.

use std::sync::Arc;

use super::super::{
    About, Batch, BatchList, DataError, Dataset, ImageSpec, LoaderOptions, Part, Prefetcher, Split, TrainLoader,
};

const SPEC: ImageSpec = ImageSpec { channels: 3, height: 8, width: 8, classes: 5 };
const OPTIONS: LoaderOptions = LoaderOptions { batch: 4, seed: 11, augment: true };

/// 23 training and 10 validation images, all different.
fn data(flip: bool) -> Arc<Dataset> {
    let split = |count: u16, salt: usize| {
        let bytes = usize::from(count) * SPEC.elements();
        let images = (0..bytes).map(|i| (i * 31 + i / 192 * 7 + salt) as u8).collect();
        Split::new(&SPEC, images, (0..count).map(|i| i % 5).collect()).unwrap()
    };
    let classes = (0..5).map(|i| i.to_string()).collect();
    let about = About { source: "made up".into(), classes, flip, ..About::default() };
    Arc::new(Dataset::new(SPEC, split(23, 0), split(10, 99), about).unwrap())
}

fn loader(options: LoaderOptions) -> TrainLoader {
    TrainLoader::new(data(true), options).unwrap()
}

#[test]
fn an_epoch_holds_every_image_once_but_for_the_incomplete_batch() {
    let mut loader = loader(LoaderOptions { augment: false, ..OPTIONS });
    assert_eq!(loader.steps_per_epoch(), 5);
    let all = data(true).batch(Part::Train, &(0..23).collect::<Vec<_>>()).unwrap();
    let mut orders = Vec::new();
    for epoch in 0..2 {
        let mut seen = Vec::new();
        for step in 0..5 {
            let batch = loader.batch(epoch * 5 + step).unwrap();
            assert_eq!(batch.images.dim(), (4, 3, 8, 8));
            for (image, label) in batch.images.outer_iter().zip(&batch.labels) {
                let index = all.images.outer_iter().position(|other| other == image).unwrap();
                assert_eq!(all.labels[index], *label);
                seen.push(index);
            }
        }
        orders.push(seen.clone());
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen.len(), 20);
    }
    assert_ne!(orders[0], orders[1]);
}

#[test]
fn any_step_can_be_made_without_those_before() {
    let mut first = loader(OPTIONS);
    let straight: Vec<Batch> = (0..12).map(|step| first.batch(step).unwrap()).collect();
    let mut second = loader(OPTIONS);
    for step in [11, 3, 7, 0, 5] {
        assert_eq!(second.batch(step).unwrap(), straight[step as usize], "step {step}");
    }
    let other = loader(LoaderOptions { seed: 12, ..OPTIONS }).batch(0).unwrap();
    assert_ne!(other, straight[0]);
}

#[test]
fn the_background_thread_makes_the_same_batches() {
    for depth in [0, 1, 3] {
        let mut twin = loader(OPTIONS);
        let mut prefetcher = Prefetcher::start(loader(OPTIONS), 2..17, depth).unwrap();
        let mut step = 2;
        while let Some(batch) = prefetcher.next() {
            let batch = batch.unwrap();
            assert_eq!(batch, twin.batch(step).unwrap(), "step {step}");
            prefetcher.recycle(batch);
            step += 1;
        }
        assert_eq!(step, 17);
        assert!(prefetcher.next().is_none());
    }
}

#[test]
fn a_prefetcher_can_be_dropped_early_and_ends() {
    let mut prefetcher = Prefetcher::start(loader(OPTIONS), 0..u64::MAX, 2).unwrap();
    assert!(prefetcher.next().is_some_and(|batch| batch.is_ok()));
    drop(prefetcher);
    assert!(Prefetcher::start(loader(OPTIONS), 5..5, 2).unwrap().next().is_none());
}

#[test]
fn augmentation_changes_images_and_never_labels() {
    let plain = loader(LoaderOptions { augment: false, ..OPTIONS }).batch(1).unwrap();
    let moved = loader(OPTIONS).batch(1).unwrap();
    assert_eq!(plain.labels, moved.labels);
    assert_ne!(plain.images, moved.images);
    assert!(moved.images.iter().all(|value| value.is_finite()));
}

#[test]
fn evaluation_keeps_order_and_the_incomplete_batch() {
    let data = data(true);
    let batches: Vec<Batch> = data.batches(Part::Validation, 4).unwrap().collect();
    assert_eq!(batches.iter().map(Batch::len).collect::<Vec<_>>(), [4, 4, 2]);
    assert_eq!(data.batches(Part::Validation, 4).unwrap().len(), 3);
    let labels: Vec<i64> = batches.iter().flat_map(|batch| batch.labels.clone()).collect();
    assert_eq!(labels, [0, 1, 2, 3, 4, 0, 1, 2, 3, 4]);
    let (mut walk, mut batch) = (data.batches(Part::Validation, 4).unwrap(), Batch::default());
    for expected in &batches {
        assert!(walk.next_into(&mut batch));
        assert_eq!(&batch, expected);
    }
    assert!(!walk.next_into(&mut batch));
}

#[test]
fn training_images_are_normalised_to_mean_zero_and_deviation_one() {
    let data = data(true);
    let batch = data.batches(Part::Train, 23).unwrap().next().unwrap();
    for channel in batch.images.axis_iter(ndarray::Axis(1)) {
        let values: Vec<f64> = channel.iter().map(|&v| f64::from(v)).collect();
        let mean = values.iter().sum::<f64>() / values.len() as f64;
        let var = values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / values.len() as f64;
        // f32 rounding of each number.
        assert!(mean.abs() < 1e-6 && (var - 1.0).abs() < 1e-6, "{mean} {var}");
    }
}

#[test]
fn fixed_batches_are_balanced_and_do_not_depend_on_their_number() {
    let data = data(true);
    let two = data.fixed_batches(Part::Train, 5, 2, 3).unwrap();
    for batch in &two {
        let mut labels = batch.labels.clone();
        labels.sort_unstable();
        assert_eq!(labels, [0, 1, 2, 3, 4]);
    }
    assert_eq!(data.fixed_batches(Part::Train, 5, 1, 3).unwrap()[0], two[0]);
    assert_ne!(data.fixed_batches(Part::Train, 5, 1, 4).unwrap()[0], two[0]);
    let message = data.fixed_batches(Part::Validation, 4, 3, 0).unwrap_err().to_string();
    assert!(message.contains("10 images") && message.contains("12") && message.contains("3 batches of 4"), "{message}");
}

#[test]
fn batches_larger_than_the_data_name_both() {
    let error = TrainLoader::new(data(true), LoaderOptions { batch: 24, ..OPTIONS }).unwrap_err();
    let message = error.to_string();
    assert!(message.contains("23 images") && message.contains("24"), "{message}");
    assert!(TrainLoader::new(data(true), LoaderOptions { batch: 0, ..OPTIONS }).is_err());
    assert!(data(true).batches(Part::Train, 0).is_err());
    assert_eq!(loader(LoaderOptions { batch: 23, ..OPTIONS }).steps_per_epoch(), 1);
}

#[test]
fn caller_owned_buffers_must_fit() {
    let data = data(false);
    let (mut images, mut labels) = (vec![0.0; 2 * SPEC.elements()], vec![0; 2]);
    data.fill(Part::Train, &[4, 0], &mut images, &mut labels).unwrap();
    assert_eq!(labels, [4, 0]);
    assert_eq!(data.batch(Part::Train, &[4, 0]).unwrap().images.as_slice().unwrap(), images);
    for indices in [&[0][..], &[0, 1, 2], &[0, 23]] {
        let error = data.fill(Part::Train, indices, &mut images, &mut labels).unwrap_err();
        assert!(matches!(error, DataError::Extent { .. }), "{error}");
    }
}

#[test]
fn batches_made_when_used_are_those_made_at_once() {
    let data = data(true);
    let indices = [7, 0, 3, 9, 9, 1, 4];
    let at_once: Vec<Batch> = indices.chunks(3).map(|chunk| data.batch(Part::Validation, chunk).unwrap()).collect();
    let list = BatchList::new(&data, Part::Validation, &indices, 3).unwrap();
    // Equal to the last bit, again and again.
    for _ in 0..2 {
        assert_eq!(list.iter().collect::<Vec<_>>(), at_once);
    }
    assert_eq!(at_once.iter().map(Batch::len).collect::<Vec<_>>(), [3, 3, 1]);
    assert_eq!(BatchList::default().iter().count(), 0);
    let beyond = BatchList::new(&data, Part::Validation, &[0, 10], 3);
    assert!(matches!(beyond, Err(DataError::Extent { found: 10, .. })));
    assert!(BatchList::new(&data, Part::Validation, &indices, 0).is_err());
}
