// An application of three containers that know each other by name, and may do nothing but what it takes:
// the client asks the server, the server asks the database, and nobody asks anything else. One network
// namespace stands for the host, so that this machine's own is left alone. As root:
//
//   $ ./21_application
//   the client hears from the server: 3 orders, says the database
//   the client asks the database itself: nothing
//   the client asks for a name outside: REFUSED
//   the database asks the server: nothing
#include <sched.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>

#include <fmt/format.h>

#include <kumiki/kumiki.hpp>

using namespace kumiki;
using namespace kumiki::literals;

constexpr const char* database_script = R"sh(
mkdir /www && echo 3 orders, says the database >/www/orders
httpd -p 5432 -h /www
sleep 1000)sh";

constexpr const char* server_script = R"sh(
mkdir -p /www/cgi-bin && cd /www/cgi-bin
printf '#!/busybox sh\necho\nwget -q -O - http://db:5432/orders\n' >orders && chmod +x orders
httpd -p 80 -h /www
sleep 1000)sh";

constexpr const char* client_script = R"sh(
until orders=$(wget -q -O - http://server/cgi-bin/orders 2>/dev/null) && [ "$orders" ]; do sleep 0.05; done
echo "the client hears from the server: $orders"
echo "the client asks the database itself: $(timeout 1 /busybox wget -q -O - http://db:5432/orders 2>/dev/null || echo nothing)"
echo "the client asks for a name outside: $(nslookup -type=a example.org | grep -o REFUSED)")sh";

constexpr const char* question_script =
    R"sh(echo "the database asks the server: $(timeout 1 /busybox wget -q -O - http://server/ 2>/dev/null || echo nothing)")sh";

// One part of the application: what it is called, what it does, whom it may ask and who may ask it.
static container_spec part(const std::string& root, const bridge_network& net, std::string name,
                           const char* script, ip_address address, policy egress, policy direct,
                           int output) {
    return {
        .rootfs = rootfs::overlay(root),
        .process = {.args = {"/busybox", "sh", "-c", script},
                    .stdio = {STDIN_FILENO, output, STDERR_FILENO}},
        .network = net.attach({.egress = std::move(egress),
                               .direct = std::move(direct),
                               .address = address,
                               .aliases = {std::move(name)}}),
    };
}

static task<void> application(scheduler& io, bridge_network net, std::string root, int output) {
    constexpr auto client = "10.88.0.2"_ip;
    constexpr auto server = "10.88.0.3"_ip;
    constexpr auto database = "10.88.0.4"_ip;
    auto store =
        co_await container::start(io, part(root, net, "db", database_script, database, deny_all(),
                                           deny_all().allow(server, tcp(5432)), output));
    auto shop = co_await container::start(
        io, part(root, net, "server", server_script, server, deny_all().allow(database, tcp(5432)),
                 deny_all().allow(client, tcp(80)), output));
    auto visitor =
        co_await container::start(io, part(root, net, "client", client_script, client,
                                           deny_all().allow(server, tcp(80)), deny_all(), output));
    co_await visitor.wait();
    exec_spec wanted{.args = {"/busybox", "sh", "-c", question_script},
                     .stdio = {STDIN_FILENO, output, STDERR_FILENO}};
    auto question = co_await store.exec(std::move(wanted));
    co_await question.wait();
}

static task<int> run_application(scheduler& io, std::string root) {
    const unique_fd said(::memfd_create("output", MFD_CLOEXEC));
    auto net = bridge_network::open(
        {.name = "shop", .subnet = "10.88.0.0/24"_cidr, .names = name_service::on});
    co_await with_scope(io, [&](scope& tasks) -> task<void> {
        tasks.spawn(serve_names(io, net));
        co_await application(io, net, root, said.get());
        tasks.cancel();
    });
    ::lseek(said.get(), 0, SEEK_SET);
    fmt::print("{}", sys::read_all(said.get(), "its output"));
    co_return 0;
}

int main() try {
    char root[] = "/tmp/kumiki-example.XXXXXX";
    if (::geteuid() != 0 || ::access("/bin/busybox", X_OK) != 0 || ::mkdtemp(root) == nullptr) {
        fmt::print(stderr, "It takes root and a static /bin/busybox.\n");
        return 77;
    }
    const std::string busybox = root + std::string("/busybox");
    const scope_exit remove([&]() noexcept {
        ::unlink(busybox.c_str());
        for (const char* name : {"/bin", ""}) ::rmdir((root + std::string(name)).c_str());
    });
    const std::string copy = sys::read_file_at(AT_FDCWD, "/bin/busybox");
    const unique_fd to = sys::open_at(AT_FDCWD, busybox, O_CREAT | O_WRONLY, 0755);
    if (::write(to.get(), copy.data(), copy.size()) != static_cast<ssize_t>(copy.size())) return 1;
    sys::check(::unshare(CLONE_NEWNET), "unshare");  // from here on, "the host"
    bring_loopback_up(namespace_fd::current(namespace_kind::net).get());
    return kumiki::run([&](scheduler& io) { return run_application(io, root); });
} catch (const error& failure) {
    fmt::print(stderr, "{}\n", failure.what());
    return 1;
}
