#include <string>
#include <vector>

#include <kumiki/cgroup/counts.hpp>

#include "support/catch.hpp"

using namespace kumiki;
using namespace kumiki::literals;

TEST_CASE("counters of memory events are read by name, whatever else is there") {
    const auto events = parse_memory_events(
        "low 1\nhigh 2\nmax 3\noom 4\noom_kill 5\noom_group_kill 6\nnew_thing 7\n");
    CHECK(events ==
          memory_event_counts{
              .low = 1, .high = 2, .max = 3, .oom = 4, .oom_kill = 5, .oom_group_kill = 6});
    CHECK(parse_memory_events("oom_kill 2\n").oom == 0);
    CHECK(parse_memory_events("") == memory_event_counts{});
    CHECK(parse_swap_events("high 1\nmax 2\nfail 3\n") ==
          swap_event_counts{.high = 1, .max = 2, .fail = 3});
    CHECK(parse_swap_events("fail 18446744073709551616\nmax -2\n") == swap_event_counts{});
}

TEST_CASE("memory.stat is read in any order, with unknown keys and without known ones") {
    // As a 6.1 kernel gives it, shortened.
    const auto stat = parse_memory_stat(
        "anon 8192\nfile 4096\nkernel 65536\nkernel_stack 16384\npagetables 20480\n"
        "sec_pagetables 0\npercpu 96\nsock 512\nvmalloc 0\nshmem 4096\nzswap 10\nzswapped 30\n"
        "file_mapped 1\nfile_dirty 2\nfile_writeback 3\nswapcached 0\ninactive_anon 4\n"
        "active_anon 5\ninactive_file 6\nactive_file 7\nunevictable 8\nslab_reclaimable 9\n"
        "slab_unreclaimable 11\nslab 20\nworkingset_refault_anon 12\nworkingset_refault_file 13\n"
        "workingset_activate_anon 0\npgscan 14\npgsteal 15\npgscan_kswapd 99\npgfault 16\n"
        "pgmajfault 17\npgrefill 98\n");
    CHECK(stat == memory_stat{.anon = 8192_B,
                              .file = 4096_B,
                              .kernel = 65536_B,
                              .kernel_stack = 16384_B,
                              .page_tables = 20480_B,
                              .per_cpu = 96_B,
                              .sockets = 512_B,
                              .shared = 4096_B,
                              .zswap = 10_B,
                              .zswapped = 30_B,
                              .file_mapped = 1_B,
                              .file_dirty = 2_B,
                              .file_writeback = 3_B,
                              .inactive_anon = 4_B,
                              .active_anon = 5_B,
                              .inactive_file = 6_B,
                              .active_file = 7_B,
                              .unevictable = 8_B,
                              .slab_reclaimable = 9_B,
                              .slab_unreclaimable = 11_B,
                              .refaults_anon = 12,
                              .refaults_file = 13,
                              .pages_scanned = 14,
                              .pages_reclaimed = 15,
                              .faults = 16,
                              .major_faults = 17});
    CHECK(parse_memory_stat("pgmajfault 2\nfile 1\nanon 3\n") ==
          memory_stat{.anon = 3_B, .file = 1_B, .major_faults = 2});
    CHECK(parse_memory_stat("anonymous 1\nano 2\n anon 3\nanon\t4\n") == memory_stat{});
}

TEST_CASE("what is no number in memory.stat counts as not there") {
    CHECK(parse_memory_stat("") == memory_stat{});
    CHECK(parse_memory_stat("anon") == memory_stat{});
    CHECK(parse_memory_stat("anon \nfile -1\nkernel 0x10\nsock 1 2\nshmem 1k\n") == memory_stat{});
    CHECK(parse_memory_stat("anon 18446744073709551615\n").anon.count == 18446744073709551615U);
    CHECK(parse_memory_stat("anon 18446744073709551616\nfile 5\n") == memory_stat{.file = 5_B});
    CHECK(parse_memory_stat(std::string_view("anon 1\0\nfile 2\n", 15)) ==
          memory_stat{.file = 2_B});
    CHECK(parse_memory_stat("\n\n\nfile 2\n\n").file == 2_B);
}

TEST_CASE("io.stat has a line for each device that was used") {
    std::vector<io_device_stat> devices(3);  // replaced
    parse_io_stat(
        "8:0 rbytes=4096 wbytes=8192 rios=1 wios=2 dbytes=512 dios=3\n"
        "259:1 rbytes=1 cost.usage=77 wios=9\n",
        devices);
    CHECK(devices == std::vector<io_device_stat>{{.device = {8, 0},
                                                  .read = 4096_B,
                                                  .written = 8192_B,
                                                  .discarded = 512_B,
                                                  .reads = 1,
                                                  .writes = 2,
                                                  .discards = 3},
                                                 {.device = {259, 1}, .read = 1_B, .writes = 9}});
    // Some kernels print a number alone; what is no device is no line.
    parse_io_stat("8:16 \n8:32\nnone rbytes=1\n8 rbytes=2\n8: rbytes=3\n4294967296:0 rbytes=4\n",
                  devices);
    CHECK(devices == std::vector<io_device_stat>{{.device = {8, 16}}, {.device = {8, 32}}});
    parse_io_stat("8:0 rbytes=18446744073709551616 wbytes= =5 rios wios=-1 dios=4", devices);
    CHECK(devices == std::vector<io_device_stat>{{.device = {8, 0}, .discards = 4}});
    parse_io_stat("", devices);
    CHECK(devices.empty());
}

TEST_CASE("misc and rdma are read by the names that the host gives them") {
    CHECK(parse_misc("res_a 3\nsev_es 0\nbroken\n") ==
          std::vector<misc_stat>{{"res_a", 3}, {"sev_es", 0}});
    CHECK(parse_rdma("mlx4_0 hca_handle=2 hca_object=2000\nocrdma1 hca_handle=3\n\n") ==
          std::vector<rdma_stat>{{"mlx4_0", 2, 2000}, {"ocrdma1", 3, 0}});
    CHECK(parse_rdma("").empty());
}
