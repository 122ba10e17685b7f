//! Pointers of the program that calls: where it wants an answer, what it gives, texts and blocks of its memory. All that is
//! unsafe about being called from C is here and in `device/host.rs`; the contract is the one that NVIDIA documents of each
//! call, that such pointers are null or good for what they say.

use std::ffi::{CStr, c_char, c_void};

use crate::status::{Call, Status};

/// Where the caller wants an answer.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub struct Out<T>(*mut T);

impl<T> Out<T> {
    /// Answers; a null pointer is an error.
    pub fn put(self, value: T) -> Call {
        if self.0.is_null() {
            return Err(Status::INVALID_VALUE);
        }
        // SAFETY: by the contract of the call, what is not null is good for a write of its type; alignment is not relied on.
        unsafe { self.0.write_unaligned(value) };
        Ok(())
    }

    /// Answers where an answer is wanted.
    pub fn offer(self, value: T) {
        let _ = self.put(value);
    }

    /// Another answer of the same list.
    pub fn nth(self, index: usize) -> Out<T> {
        Out(self.0.wrapping_add(index))
    }

    /// Its address.
    pub fn address(self) -> u64 {
        self.0 as u64
    }
}

impl Out<c_char> {
    /// Answers with a text, cut to what there is room for, its end included.
    pub fn text(self, text: &str, room: usize) -> Call {
        let kept = text.len().min(room.checked_sub(1).ok_or(Status::INVALID_VALUE)?);
        for (i, byte) in text.bytes().take(kept).chain([0]).enumerate() {
            self.nth(i).put(byte as c_char)?;
        }
        Ok(())
    }
}

/// What the caller gives by a pointer.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub struct Given<T>(*const T);

impl<T: Copy> Given<T> {
    /// Nothing.
    pub fn none() -> Given<T> {
        Given(std::ptr::null())
    }

    /// The value; a null pointer is an error.
    pub fn get(self) -> Call<T> {
        self.list(1).map(|list| list[0])
    }

    /// So many values, one after the other.
    pub fn list(self, count: usize) -> Call<Vec<T>> {
        if self.0.is_null() {
            return if count == 0 { Ok(Vec::new()) } else { Err(Status::INVALID_VALUE) };
        }
        // SAFETY: by the contract of the call, what is not null is good for so many reads of its type; alignment is not
        // relied on.
        Ok((0..count).map(|i| unsafe { self.0.add(i).read_unaligned() }).collect())
    }

    /// Whether it is there.
    pub fn is_given(self) -> bool {
        !self.0.is_null()
    }
}

/// A text of the caller's.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub struct Text(*const c_char);

impl Text {
    /// A copy; a null pointer is an error.
    pub fn get(self) -> Call<String> {
        if self.0.is_null() {
            return Err(Status::INVALID_VALUE);
        }
        // SAFETY: by the contract of the call, what is not null is a text with a zero at its end.
        Ok(unsafe { CStr::from_ptr(self.0) }.to_string_lossy().into_owned())
    }
}

/// Memory of the caller's, by its address; as long as the call says.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub struct Place(*mut c_void);

impl Place {
    /// What is at an address.
    pub fn at(address: u64) -> Place {
        Place(address as *mut c_void)
    }

    /// A copy of its first bytes.
    pub fn read(self, len: usize) -> Call<Vec<u8>> {
        let mut bytes = vec![0; len];
        if len == 0 {
            return Ok(bytes);
        }
        if self.0.is_null() {
            return Err(Status::INVALID_VALUE);
        }
        // SAFETY: by the contract of the call, so many bytes can be read there; the target is as long and new.
        unsafe { std::ptr::copy_nonoverlapping(self.0.cast::<u8>(), bytes.as_mut_ptr(), len) };
        Ok(bytes)
    }

    /// Changes its first bytes.
    pub fn write(self, bytes: &[u8]) -> Call {
        if bytes.is_empty() {
            return Ok(());
        }
        if self.0.is_null() {
            return Err(Status::INVALID_VALUE);
        }
        // SAFETY: by the contract of the call, so many bytes can be written there, and the source is no memory of the
        // caller's, so that the two do not overlap.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), self.0.cast::<u8>(), bytes.len()) };
        Ok(())
    }

    /// The first word, where something is.
    pub fn word(self) -> Call<u32> {
        let bytes = self.read(4)?;
        Ok(u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
    }

    /// A text with a zero at its end.
    pub fn text(self) -> Call<String> {
        Text(self.0.cast::<c_char>().cast_const()).get()
    }
}

/// A function of the caller's that takes a pointer of its own.
pub type HostFunction = unsafe extern "C" fn(*mut c_void);

/// Calls back into the program.
pub fn call_back(function: Option<HostFunction>, data: Place) -> Call {
    let function = function.ok_or(Status::INVALID_VALUE)?;
    // SAFETY: by the contract of the call, the function may be called with this pointer; no lock is held here.
    unsafe { function(data.0) };
    Ok(())
}

/// A text that C can keep a pointer to.
pub fn lasting(text: &str) -> *const c_char {
    use std::collections::HashMap;
    use std::ffi::CString;
    use std::sync::{Mutex, PoisonError};
    /// Texts that were asked for; there are as many as error codes and names of kernels.
    static TEXTS: Mutex<Option<HashMap<String, &'static CStr>>> = Mutex::new(None);
    let mut texts = TEXTS.lock().unwrap_or_else(PoisonError::into_inner);
    let known = texts.get_or_insert_default().entry(text.to_owned());
    known
        .or_insert_with_key(|text| {
            Box::leak(CString::new(text.replace('\0', "")).unwrap_or_default().into_boxed_c_str())
        })
        .as_ptr()
}

unsafe extern "C" {
    static mut stdout: *mut c_void;
    fn atexit(function: extern "C" fn()) -> i32;
    fn fwrite(bytes: *const c_void, size: usize, count: usize, file: *mut c_void) -> usize;
}

/// Writes to the program's own standard output, behind what it has written there itself.
pub fn print(text: &str) {
    // SAFETY: C's standard output is there as long as the process; the bytes are as many as is said.
    unsafe { fwrite(text.as_ptr().cast(), 1, text.len(), stdout) };
}

/// Has a function called when the program ends.
pub fn at_exit(function: extern "C" fn()) {
    // SAFETY: the function is there as long as the process, and takes nothing.
    unsafe { atexit(function) };
}

/// Three sizes, as CUDA passes them by value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Dim3 {
    pub x: u32,
    pub y: u32,
    pub z: u32,
}

impl From<Dim3> for [u32; 3] {
    fn from(dim: Dim3) -> [u32; 3] {
        [dim.x, dim.y, dim.z]
    }
}
