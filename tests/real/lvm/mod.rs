//! Tests on real LVM. They need device-mapper, which the kernel outside may lack: `tests/guest/run` runs them
//! inside an emulated guest. Without device-mapper they fail, they never pass.

mod captures;
mod group;
mod lab;
