//! Memory as a host program uses it: several modules, buffers that are freed, access by address, definedness by range.

use ptx_emulator::{Kind, Launch, Memory, MemoryError, Module, run};

/// Adds the module's own step to the first word behind the pointer.
fn adds(step: u32) -> String {
    format!(
        ".version 9.0\n.target sm_80\n.address_size 64\n.global .align 4 .u32 step = {step};\n
        .visible .entry add(.param .u64 p, .param .u32 times)\n{{\n
        .reg .b32 %r<5>;\n.reg .b64 %rd<2>;\n
        ld.param.u64 %rd1, [p];\nld.param.u32 %r1, [times];\n
        ld.global.u32 %r2, [step];\nld.global.u32 %r3, [%rd1];\n
        mad.lo.u32 %r4, %r1, %r2, %r3;\nst.global.u32 [%rd1], %r4;\nret;\n}}"
    )
}

fn add(memory: &Memory, module: &Module, address: u64, times: u32) -> Vec<ptx_emulator::Finding> {
    let kernel = module.entry("add").expect("loads");
    let params = kernel.pack(&[&address.to_le_bytes(), &times.to_le_bytes()]).expect("two parameters");
    run(&kernel, memory, &Launch::new([1; 3], [1; 3], params)).expect("runs").findings
}

#[test]
fn modules_share_buffers_and_keep_their_own_variables() {
    let mut memory = Memory::default();
    let (one, ten) = (memory.load(&adds(1)).expect("parses"), memory.load(&adds(10)).expect("parses"));
    let sum = memory.alloc_from("sum", &5u32.to_le_bytes()).expect("fits");
    assert!(add(&memory, &one, sum.address(), 2).is_empty());
    assert!(add(&memory, &ten, sum.address(), 3).is_empty());
    assert_eq!(memory.read(sum), Ok(37u32.to_le_bytes().to_vec()));
    let step = ten.symbol("step").expect("a variable");
    memory.write(step, 0, &100u32.to_le_bytes()).expect("its size");
    assert!(add(&memory, &one, sum.address(), 1).is_empty() && add(&memory, &ten, sum.address(), 1).is_empty());
    assert_eq!(memory.read(sum), Ok(138u32.to_le_bytes().to_vec()));
    memory.unload(&ten);
    assert!(memory.read(step).is_err() && add(&memory, &one, sum.address(), 1).is_empty());
    assert!(!add(&memory, &ten, sum.address(), 1).is_empty(), "its variable is gone");
}

#[test]
fn parameters_are_packed_by_the_sizes_that_the_kernel_declares() {
    let kernel = Module::parse(&adds(1)).expect("parses").entry("add").expect("loads");
    assert_eq!(kernel.parameters(), [(0, 8), (8, 4)]);
    for wrong in [&[&[0u8; 8][..]][..], &[&[0; 8], &[0; 8]], &[&[0; 4], &[0; 8]]] {
        assert!(kernel.pack(wrong).is_none(), "{wrong:?}");
    }
}

#[test]
fn what_was_freed_is_named_and_never_given_again() {
    let mut memory = Memory::default();
    let module = memory.load(&adds(1)).expect("parses");
    let first = memory.alloc_from("first", &[0; 16]).expect("fits");
    memory.free(first).expect("is there");
    let second = memory.alloc_from("second", &[0; 16]).expect("fits");
    assert_ne!(first.address(), second.address());
    let found = add(&memory, &module, first.address() + 8, 1);
    assert_eq!(found.iter().map(|f| f.kind).collect::<Vec<_>>(), [Kind::OutOfBounds; 2]);
    assert!(found[0].message.contains("first + 0x8 of 16 bytes, which was freed"), "{}", found[0].message);
    let Err(MemoryError::UnknownBuffer { place }) = memory.free(first) else { panic!("it was freed before") };
    assert_eq!(place, "first + 0x0 of 16 bytes, which was freed");
}

#[test]
fn an_address_leads_to_its_buffer() {
    let mut memory = Memory::default();
    let host = memory.alloc_at("host", 0x6000_0000_0000, &[7; 100]).expect("nothing is there");
    assert_eq!(memory.locate(host.address() + 99), Some((host, 99)));
    assert_eq!(memory.locate(host.address() + 100), None);
    assert!(memory.alloc_at("other", host.address() + 99, &[0]).is_err());
    assert!(memory.alloc_at("other", host.address() - 1, &[0]).is_ok());
    let empty = memory.alloc("empty", 0).expect("fits");
    assert_eq!(memory.locate(empty.address()), Some((empty, 0)));
}

#[test]
fn bytes_are_written_copied_and_defined_wherever_a_range_begins_and_ends() {
    let mut memory = Memory::default();
    let (from, to) = (memory.alloc("from", 200).expect("fits"), memory.alloc("to", 200).expect("fits"));
    assert_eq!(memory.undefined(from, 0..200).expect("its size").first(), Some(&(0..200)));
    for (start, len) in [(3, 1), (5, 9), (17, 64), (100, 0), (126, 70)] {
        let content: Vec<u8> = (start..start + len).map(|i| i as u8).collect();
        memory.write(from, start, &content).expect("inside");
        assert_eq!(memory.read_part(from, start, len), Ok(content));
    }
    assert_eq!(memory.undefined(from, 0..200), Ok(vec![0..3, 4..5, 14..17, 81..126, 196..200]));
    memory.copy((from, 2), (to, 1), 100).expect("inside");
    assert_eq!(memory.undefined(to, 0..200), Ok(vec![0..2, 3..4, 13..16, 80..200]));
    assert_eq!(memory.read_part(to, 4, 9), memory.read_part(from, 5, 9));
    assert_eq!(memory.read_over(to, [1, 2, 3, 4]).map(|bytes| bytes[..5].to_vec()), Ok(vec![1, 2, 3, 4, 5]));
    assert!(memory.write(to, 199, &[0, 0]).is_err() && memory.copy((from, 0), (to, 150), 51).is_err());
}
