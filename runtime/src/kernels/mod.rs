//! The fused kernels of [`nasbn_kernels`], and [`operators`], which wraps them as custom operators of the domain `nasbn`.

pub mod operators;

pub use nasbn_kernels::*;

#[cfg(test)]
mod tests {
    use super::Filter;

    /// The exporter leaves larger filters to ONNX Runtime's own nodes: the two must agree.
    #[test]
    fn the_largest_filter_is_the_one_of_the_exporters_contract() {
        let largest = i64::from(nasbn_export::lower::fused::LARGEST_DEPTHWISE_KERNEL);
        assert!(Filter::new("test", largest, largest, largest / 2).is_ok());
        assert!(Filter::new("test", largest + 1, 1, 0).is_err());
        assert!(Filter::new("test", 1, largest + 1, 0).is_err());
    }
}
