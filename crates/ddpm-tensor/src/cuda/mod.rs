//! NVIDIA GPUs: whether one can be used, and if not, why.

use cudarc::driver::sys;

use crate::TensorError;

/// A GPU that answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CudaInfo {
    /// Number of devices.
    pub devices: usize,
    /// Version of the driver's interface, 1000 · major + 10 · minor.
    pub driver: i32,
}

/// Asks the driver, without touching a device's state, whether there is a GPU.
///
/// # Errors
/// [`TensorError::NoCuda`] with the reason in one line. Never panics: cudarc does when the driver's library is missing, so
/// the library is looked for first.
pub fn probe() -> Result<CudaInfo, TensorError> {
    let no = |reason: String| Err(TensorError::NoCuda(reason));
    // SAFETY: only opens the driver's library; the dynamic loader runs its initialisers, as it does for any program.
    if !unsafe { sys::is_culib_present() } {
        return no("NVIDIA's driver library (libcuda) is not installed".into());
    }
    // SAFETY: the library is present, and cuInit may be called at any time.
    let code = unsafe { sys::cuInit(0) };
    if code != sys::CUresult::CUDA_SUCCESS {
        return no(format!("the driver does not start ({code:?})"));
    }
    let (mut driver, mut devices) = (0, 0);
    // SAFETY: writes one integer through a pointer to one.
    let code = unsafe { sys::cuDriverGetVersion(&raw mut driver) };
    if code != sys::CUresult::CUDA_SUCCESS {
        return no(format!("the driver does not tell its version ({code:?})"));
    }
    // SAFETY: writes one integer through a pointer to one.
    let code = unsafe { sys::cuDeviceGetCount(&raw mut devices) };
    if code != sys::CUresult::CUDA_SUCCESS {
        return no(format!("the driver does not count its devices ({code:?})"));
    }
    if devices < 1 {
        return no("the driver is there, but it finds no device".into());
    }
    Ok(CudaInfo { devices: devices as usize, driver })
}

#[cfg(test)]
mod tests {
    #[test]
    fn probing_never_panics_and_says_why_not() {
        match super::probe() {
            Ok(info) => assert!(info.devices > 0 && info.driver > 0),
            Err(error) => {
                let line = error.to_string();
                assert!(line.starts_with("no CUDA device: ") && line.lines().count() == 1, "{line}");
            }
        }
    }
}
