//! The pipeline against devices made for the test.
