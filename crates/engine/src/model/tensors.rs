//! Finding a plan's tensors in a file, and noticing those that no plan asked for.

use crate::Error;
use crate::config::Config;
use plumb_gguf::{Gguf, TensorInfo, dequant};
use std::cell::RefCell;
use std::collections::HashSet;

/// The tensors of one file, with what was asked for so far.
pub(super) struct Tensors<'a> {
    gguf: &'a Gguf,
    config: &'a Config,
    used: RefCell<HashSet<&'a str>>,
}

impl<'a> Tensors<'a> {
    pub(super) fn new(gguf: &'a Gguf, config: &'a Config) -> Self {
        Self { gguf, config, used: RefCell::default() }
    }

    /// A matrix of `outputs` rows of `inputs`.
    pub(super) fn matrix(
        &self,
        name: &str,
        outputs: usize,
        inputs: usize,
    ) -> Result<&'a TensorInfo, Error> {
        self.find(name, &[inputs, outputs])?.ok_or_else(|| self.missing(name))
    }

    /// As [`Self::matrix`], where the family can do without.
    pub(super) fn optional_matrix(
        &self,
        name: &str,
        outputs: usize,
        inputs: usize,
    ) -> Result<Option<&'a TensorInfo>, Error> {
        self.find(name, &[inputs, outputs])
    }

    /// A vector in single precision.
    pub(super) fn vector(&self, name: &str, len: usize) -> Result<Vec<f32>, Error> {
        self.optional_vector(name, len)?.ok_or_else(|| self.missing(name))
    }

    /// As [`Self::vector`], where the family can do without.
    pub(super) fn optional_vector(
        &self,
        name: &str,
        len: usize,
    ) -> Result<Option<Vec<f32>>, Error> {
        let Some(tensor) = self.find(name, &[len])? else { return Ok(None) };
        let mut values = vec![0.0; len];
        dequant::row(tensor.ty, self.gguf.data(tensor), &mut values);
        Ok(Some(values))
    }

    /// A tensor that nobody asked for would change the answer, were it used.
    pub(super) fn refuse_unused(&self) -> Result<(), Error> {
        let used = self.used.borrow();
        match self.gguf.tensors().iter().find(|tensor| !used.contains(tensor.name.as_str())) {
            Some(tensor) => Err(Error::UnusedTensor { name: tensor.name.clone() }),
            None => Ok(()),
        }
    }

    fn find(&self, name: &str, expected: &[usize]) -> Result<Option<&'a TensorInfo>, Error> {
        let Some(tensor) = self.gguf.tensor(name) else { return Ok(None) };
        let shape = tensor.dims.iter().copied().chain(std::iter::repeat(1));
        let extra = tensor.dims.len().saturating_sub(expected.len());
        let wanted = expected.iter().copied().chain(std::iter::repeat_n(1, extra));
        if tensor.dims.len() > expected.len() + extra || !shape.zip(wanted).all(|(a, b)| a == b) {
            return Err(Error::TensorShape {
                name: name.to_owned(),
                found: tensor.dims.iter().map(|&d| d as u64).collect(),
                expected: expected.iter().map(|&d| d as u64).collect(),
            });
        }
        self.used.borrow_mut().insert(&tensor.name);
        Ok(Some(tensor))
    }

    fn missing(&self, name: &str) -> Error {
        Error::MissingTensor { name: name.to_owned(), arch: self.config.family.name() }
    }
}
