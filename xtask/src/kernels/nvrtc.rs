//! NVRTC, NVIDIA's compiler from CUDA C++ to PTX, as a library that is loaded when needed.
//!
//! The one place outside of the two lowest crates with `unsafe`: a C library is called here, in a program that is
//! never shipped.

#![allow(unsafe_code)]

use anyhow::{Context, Result, bail, ensure};
use libloading::Library;
use std::ffi::{CStr, CString, OsString, c_char, c_int, c_void};
use std::path::{Path, PathBuf};
use std::ptr;

/// A file in memory: a translation unit, or a header under the name by which it is included.
pub(crate) struct Source {
    pub(crate) name: String,
    pub(crate) text: String,
}

impl From<(String, String)> for Source {
    fn from((name, text): (String, String)) -> Self {
        Self { name, text }
    }
}

/// `nvrtcProgram`.
type Program = *mut c_void;
/// `nvrtcResult`: zero is success.
type Status = c_int;

type TextFn = unsafe extern "C" fn(Program, *mut c_char) -> Status;
type SizeFn = unsafe extern "C" fn(Program, *mut usize) -> Status;
type CompileFn = unsafe extern "C" fn(Program, c_int, *const *const c_char) -> Status;
type DestroyFn = unsafe extern "C" fn(*mut Program) -> Status;
type VersionFn = unsafe extern "C" fn(*mut c_int, *mut c_int) -> Status;
type CreateFn = unsafe extern "C" fn(
    *mut Program,
    *const c_char,
    *const c_char,
    c_int,
    *const *const c_char,
    *const *const c_char,
) -> Status;

/// A loaded NVRTC.
pub(crate) struct Nvrtc {
    path: PathBuf,
    version: (i32, i32),
    create: CreateFn,
    compile: CompileFn,
    destroy: DestroyFn,
    log_size: SizeFn,
    log: TextFn,
    ptx_size: SizeFn,
    ptx: TextFn,
    /// Keeps the functions mapped.
    _library: Library,
}

impl Nvrtc {
    /// Loads a library, given a file or a name that the system's loader knows.
    pub(crate) fn load(path: impl Into<OsString>) -> Result<Self> {
        let path = PathBuf::from(path.into());
        // SAFETY: loading runs the library's initialisers. It is NVIDIA's, from where NVIDIA's installers or the user
        // put it.
        let library = unsafe { Library::new(&path) }.with_context(|| format!("loading {}", path.display()))?;
        macro_rules! function {
            ($name:literal, $type:ty) => {
                // SAFETY: the type is the function's declaration in nvrtc.h, the same since CUDA 7.
                *unsafe { library.get::<$type>(concat!($name, "\0").as_bytes()) }
                    .with_context(|| format!("{} is not an NVRTC", path.display()))?
            };
        }
        let (mut major, mut minor) = (0, 0);
        let version_of = function!("nvrtcVersion", VersionFn);
        // SAFETY: both pointers are to integers that outlive the call.
        let status = unsafe { version_of(&raw mut major, &raw mut minor) };
        ensure!(status == 0, "{} does not tell its version", path.display());
        Ok(Self {
            version: (major, minor),
            create: function!("nvrtcCreateProgram", CreateFn),
            compile: function!("nvrtcCompileProgram", CompileFn),
            destroy: function!("nvrtcDestroyProgram", DestroyFn),
            log_size: function!("nvrtcGetProgramLogSize", SizeFn),
            log: function!("nvrtcGetProgramLog", TextFn),
            ptx_size: function!("nvrtcGetPTXSize", SizeFn),
            ptx: function!("nvrtcGetPTX", TextFn),
            path,
            _library: library,
        })
    }

    /// Where it was loaded from.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Major and minor version.
    pub(crate) fn version(&self) -> (i32, i32) {
        self.version
    }

    /// Compiles a unit to PTX. Headers come from memory, so that no path of this machine can get into the PTX.
    pub(crate) fn compile(&self, unit: &Source, headers: &[Source], options: &[&str]) -> Result<String> {
        let owned = |texts: Vec<&str>| -> Result<Vec<CString>> {
            texts.into_iter().map(|text| CString::new(text).context("a source holds a zero byte")).collect()
        };
        let pointers = |texts: &[CString]| texts.iter().map(|text| text.as_ptr()).collect::<Vec<_>>();
        let this = owned(vec![&unit.text, &unit.name])?;
        let texts = owned(headers.iter().map(|header| header.text.as_str()).collect())?;
        let names = owned(headers.iter().map(|header| header.name.as_str()).collect())?;
        let options = owned(options.to_vec())?;
        let mut program = Destroyed { program: ptr::null_mut(), destroy: self.destroy };
        // SAFETY: all strings end in zero and outlive the call; both arrays have as many entries as is said.
        let status = unsafe {
            (self.create)(
                &raw mut program.program,
                this[0].as_ptr(),
                this[1].as_ptr(),
                headers.len() as c_int,
                pointers(&texts).as_ptr(),
                pointers(&names).as_ptr(),
            )
        };
        ensure!(status == 0, "nvrtcCreateProgram failed with {status}");
        // SAFETY: the program was made above; the options end in zero, outlive the call and are as many as is said.
        let status = unsafe { (self.compile)(program.program, options.len() as c_int, pointers(&options).as_ptr()) };
        let log = text_of(program.program, self.log_size, self.log)?;
        if status != 0 {
            bail!("{} does not compile (NVRTC status {status}):\n{}", unit.name, log.trim());
        }
        ensure!(log.trim().is_empty(), "{} compiles with warnings:\n{}", unit.name, log.trim());
        text_of(program.program, self.ptx_size, self.ptx)
    }
}

/// A text that NVRTC keeps with a program.
fn text_of(program: Program, size_of: SizeFn, copy: TextFn) -> Result<String> {
    let mut size = 0;
    // SAFETY: the program lives, and `size` outlives the call.
    let status = unsafe { size_of(program, &raw mut size) };
    ensure!(status == 0, "NVRTC does not tell a text's size: {status}");
    let mut bytes = vec![0u8; size + 1];
    // SAFETY: the program lives, and the buffer holds the size that was asked for (which counts the zero).
    let status = unsafe { copy(program, bytes.as_mut_ptr().cast()) };
    ensure!(status == 0, "NVRTC does not give a text: {status}");
    Ok(CStr::from_bytes_until_nul(&bytes)?.to_str().context("NVRTC gave no UTF-8")?.to_owned())
}

/// A program that is destroyed when it is dropped.
struct Destroyed {
    program: Program,
    destroy: DestroyFn,
}

impl Drop for Destroyed {
    fn drop(&mut self) {
        if !self.program.is_null() {
            // SAFETY: made by nvrtcCreateProgram and destroyed nowhere else.
            unsafe { (self.destroy)(&raw mut self.program) };
        }
    }
}
