#include "oracle.hpp"

#include <algorithm>
#include <cstdio>

#include "world.hpp"
#include "writer.hpp"

namespace sim {
namespace {

std::string describe(const std::vector<Key>& keys) {
    std::string text = std::to_string(keys.size()) + ", as";
    for (std::size_t i = 0; i < std::min<std::size_t>(keys.size(), 6); ++i) {
        text += " " + std::to_string(keys[i].first) + ":" + std::to_string(keys[i].second);
    }
    return text;
}

}  // namespace

// ---- while the world goes on ------------------------------------------------------------------------

Facts& Oracle::add_writer(unsigned number) {
    Facts& facts = writers_[number];
    facts.number = number;
    return facts;
}

void Oracle::note_ring(Facts& facts, const std::string& path, std::uint64_t directory) {
    if (path.empty()) return;
    facts.path = path;
    facts.ring = world_.disk.find(world_.disk.root(), path);
    const std::size_t uuid = path.rfind(".ring") - 36;
    const std::string pointer = ".fastlog/" + path.substr(uuid) + "-at";
    bool found = path.starts_with("/d/");
    for (const std::string& run : runs(world_)) {
        found = found || world_.disk.find(world_.disk.root(), run + "/" + pointer) != nullptr;
    }
    // Removed, and made anew by another one, while this one began: a limit that the documents name.
    const Node* const run = world_.disk.find(world_.disk.root(), kRun);
    facts.ringless = facts.ring == nullptr || !found || run == nullptr || run->inode != directory;
}

void Oracle::note_death(Process& process) {
    if (process.writer == nullptr) return;
    for (auto& [number, facts] : writers_) {
        if (number == process.writer->number && !facts.closed) facts.killed = true;
    }
}

void Oracle::note_power_loss() {
    power_lost_ = true;
    for (auto& [number, facts] : writers_) facts.power = true;
}

void Oracle::excuse(std::string_view bytes) { collect(bytes, excused_); }

void Oracle::note_removed(Node& node, const std::string& name) {
    if (world_.idle() || world_.process().killable) return;  // not by a user
    if (node.directory) return;
    taken_ = true;
    if (is_stream_file(name)) excuse(node.bytes->view());
    for (auto& [number, facts] : writers_) {
        // A pointer may be all that led to it.
        if (facts.ring == &node || name.ends_with(".ring-at")) facts.ringless = true;
    }
}

void Oracle::note_cut(Node& node, std::size_t size) {
    if (world_.idle() || world_.process().killable || size >= node.bytes->size()) return;
    taken_ = true;
    cut_.insert(&node);
    for (auto& [own, bytes] : foreign_) {
        if (own == &node) bytes.resize(size);
    }
    const std::string_view all = node.bytes->view();
    const std::size_t line = size == 0 ? 0 : all.rfind('\n', size - 1) + 1;
    excuse(all.substr(line));
}

void Oracle::note_foreign(Node& node) { foreign_.emplace_back(&node, node.bytes->view()); }

void Oracle::note_copy(const std::string& run) {
    std::set<Key>& keys = copies_[run];
    keys.clear();
    Node* const node = world_.disk.find(world_.disk.root(), run);
    if (node == nullptr) return;
    for (const auto& [name, file] : node->names) {
        if (!file->directory && is_stream_file(name)) collect(file->bytes->view(), keys, true);
    }
}

std::set<Key> Oracle::in_files() {
    std::set<Key> keys;
    for (const std::string& run : runs(world_)) {
        if (is_copy(run)) continue;
        for (const auto& [name, file] : world_.disk.find(world_.disk.root(), run)->names) {
            if (!file->directory && is_stream_file(name)) collect(file->bytes->view(), keys);
        }
    }
    return keys;
}

void Oracle::promise(Facts& facts, std::uint64_t acked, const char* what) {
    facts.promised = acked;
    const std::set<Key> there = in_files();
    std::vector<Key> missing;
    for (std::uint64_t n = 0; n < acked; ++n) {
        const Key key{facts.number, n};
        if (!there.contains(key) && !excused_.contains(key)) missing.push_back(key);
    }
    if (!missing.empty()) world_.fail(std::string(what) + "-false", describe(missing));
}

// ---- the end ----------------------------------------------------------------------------------------

void Oracle::tell(const char* who, const fastlog::RecoveryReport& report) const {
    if (!world_.verbose) return;
    std::printf("%s%s %s %s, %lu lines, %lu cut\n", who, report.ring.c_str(),
                fastlog::outcome_name(report.outcome), report.reason.c_str(), report.emitted,
                report.cut_bytes);
}

void Oracle::foresee(const std::string& run, SimFiles& files) {
    Node* const node = world_.disk.find(world_.disk.root(), run);
    foreseen_.clear();
    fastlog::FileEdits all;
    std::vector<std::string> names;
    if (!files.list(-100, run + "/.fastlog", names)) names.clear();
    for (const std::string& name : names) {
        if (!name.ends_with(".ring") && !name.ends_with(".ring-at")) continue;
        views_.push_back(std::make_unique<fastlog::RingView>(
            run, run + "/.fastlog/" + name, all, fastlog::ShadowFiles::Limits{}, files));
        for (const auto& [file, edit] : views_.back()->edits()) all[file] = edit;
        tell("a view: ", views_.back()->report());
    }
    for (const auto& [name, file] : node->names) {
        if (!file->directory && is_stream_file(name)) foreseen_[name] = file->bytes->view();
    }
    for (const auto& [name, edit] : all) {
        if (edit.removed) {
            foreseen_.erase(name);
            continue;
        }
        std::string& text = foreseen_[name];
        std::string next;
        for (const auto& range : edit.kept) {
            next += text.substr(range.begin, range.end - range.begin);
        }
        next += edit.pending;
        text = next;
    }
    views_.clear();
}

void Oracle::compare(const std::string& run, const std::vector<fastlog::RecoveryReport>& reports) {
    Node* const node = world_.disk.find(world_.disk.root(), run);
    std::map<std::string, std::string> now;
    for (const auto& [name, file] : node->names) {
        if (!file->directory && is_stream_file(name)) now[name] = file->bytes->view();
    }
    for (const auto& report : reports) {
        tell("recovery: ", report);
        if (report.outcome == fastlog::RecoveryReport::Outcome::failed) return;  // see note_left()
        if (report.outcome == fastlog::RecoveryReport::Outcome::recovered) {
            recovered_.insert(report.ring);
        }
    }
    if (now == foreseen_) return;
    for (const auto& [name, text] : now) {
        if (foreseen_[name] != text) {
            return world_.fail("view-differs",
                               run + "/" + name + " " + difference(foreseen_[name], text));
        }
    }
    world_.fail("view-differs", run + ": a file that recovery does not make");
}

// After a recovery that nothing disturbed.
void Oracle::note_left(const std::string& run, const fastlog::RecoveryReport& report) {
    const std::string text = run + ": " + report.ring + " " +
                             fastlog::outcome_name(report.outcome) + " " + report.reason;
    if (report.outcome == fastlog::RecoveryReport::Outcome::live) return world_.fail("live", text);
    // A recovery that is at work when its run is renamed leaves mark and pointer there.
    const bool elsewhere = report.outcome == fastlog::RecoveryReport::Outcome::elsewhere;
    if (elsewhere && moved_) return;
    if (!is_copy(run) && !taken_ && !power_lost_) world_.fail("ring-left", text);
}

// Whether nobody could clean up behind it.
bool Oracle::careless(const Facts& facts) const {
    return (facts.killed && facts.ringless) || (facts.power && !recovered_.contains(facts.path));
}

bool Oracle::careless() const {
    return std::any_of(writers_.begin(), writers_.end(),
                       [this](const auto& entry) { return careless(entry.second); });
}

// Lines that a failed fsync had moved, where nobody knows of the cut that is due.
bool Oracle::moved_lines(const Key& key) const {
    const auto writer = writers_.find(key.first);
    return world_.disk.sync_failed && writer != writers_.end() && careless(writer->second);
}

void Oracle::judge() {
    std::map<Key, unsigned> count;
    for (const std::string& run : runs(world_)) {
        Node* const node = world_.disk.find(world_.disk.root(), run);
        if (is_copy(run) && power_lost_) continue;  // nobody had synced it
        if (node != nullptr) judge_run(run, *node, count);
    }
    judge_writers(count);
    judge_renamed();
    for (const auto& [node, bytes] : foreign_) {
        if (node->bytes->view() != bytes && !power_lost_) {
            world_.fail("foreign-changed", std::string(node->bytes->view()));
        }
    }
}

// Nothing more is written to a file that has another name, by whoever has lived to look.
void Oracle::judge_renamed() {
    for (const auto& [node, size] : renamed_) {
        std::set<Key> keys;
        collect(node->bytes->view(), keys);
        const bool killed = std::any_of(keys.begin(), keys.end(), [this](const Key& key) {
            const auto writer = writers_.find(key.first);
            return writer != writers_.end() && writer->second.killed;
        });
        if (node->bytes->size() > size && !killed && !power_lost_) {
            world_.fail("late", std::string(node->bytes->view().substr(size)));
        }
    }
}

void Oracle::judge_run(const std::string& run, Node& node, std::map<Key, unsigned>& count) {
    const bool copy = is_copy(run);
    std::map<Key, unsigned> here;
    std::set<Key> renamed;
    std::map<std::string, std::vector<Line>> streams;
    for (const auto& [name, file] : node.names) {
        if (file->directory || !is_stream_file(name)) continue;
        std::vector<Line> lines;
        judge_file(run + "/" + name, *file, copy, lines);
        std::string stream = name.substr(0, name.find(".jsonl"));
        if (const auto dot = stream.rfind('.');
            dot != stream.npos && stream.find_first_not_of("0123456789", dot + 1) == stream.npos) {
            stream.resize(dot);
        }
        auto& all = streams[stream];
        all.insert(all.end(), lines.begin(), lines.end());
        for (const Line& line : lines) {
            if (!line.record) continue;
            // A batch that was half written when its file was renamed, by a process that was killed before it
            // looked again, or a ring that a power loss brought back, or a file that was to be cut after a failed
            // fsync: nobody knows the new name.
            const auto writer = writers_.find(line.key.first);
            const bool killed = writer != writers_.end() && writer->second.killed;
            const bool unknown = killed || power_lost_ || world_.disk.sync_failed;
            if (!name.ends_with(".jsonl") && unknown) {
                renamed.insert(line.key);
            } else {
                ++here[line.key];
            }
        }
    }
    for (const Key& key : renamed) here.try_emplace(key, 1);
    std::vector<Key> twice;
    for (const auto& [key, times] : here) {
        const bool moving = copy && world_.disk.sync_failed;  // when the copy was made
        if (times > 1 && !moving && !moved_lines(key)) twice.push_back(key);
        if (!copy) count[key] += times;
    }
    if (!twice.empty() && !overlaid_.contains(run)) {
        world_.fail("duplicate", run + ": " + describe(twice));
    }
    if (copy) {
        std::vector<Key> gone;
        for (const Key& key : copies_.at(run)) {
            if (!here.contains(key)) gone.push_back(key);
        }
        if (!gone.empty()) world_.fail("copy-cut", run + ": " + describe(gone));
    } else if (!taken_ && !careless() && !power_lost_ && renamed_.empty()) {
        judge_numbers(run, streams);
    }
    Node* const moved = world_.disk.find(&node, ".fastlog/quarantine");
    if (moved != nullptr && !moved->names.empty() && !copy && !power_lost_) {
        world_.fail("quarantined", run + ": " + moved->names.begin()->first);
    }
}

void Oracle::judge_file(const std::string& path, Node& file, bool copy, std::vector<Line>& lines) {
    if (std::any_of(foreign_.begin(), foreign_.end(),
                    [&file](const auto& one) { return one.first == &file; })) {
        return;
    }
    const bool cut = cut_.contains(&file);
    const bool renamed = !path.ends_with(".jsonl");
    std::set<std::uint64_t> writers;
    std::map<std::uint64_t, std::uint64_t> last;
    const std::string_view torn = each_line(file.bytes->view(), [&](std::string_view text) {
        Line line;
        if (!parse(text, line)) {
            if (copy && text == kForeign.substr(0, text.size())) return;
            // Nobody mends what has another name, where its pages were lost.
            const bool holes = renamed && power_lost_;
            if (!cut && !careless() && !holes) {
                world_.fail("bad-line", path + ": " + std::string(text));
            }
            return;
        }
        lines.push_back(line);
        if (!line.record) return;
        writers.insert(line.key.first);
        const auto before = last.find(line.key.first);
        if (before != last.end() && line.key.second < before->second && !copy && !cut &&
            !power_lost_) {
            world_.fail("order", path + ": " + describe({line.key}));
        }
        last[line.key.first] = line.key.second;
    });
    if (!torn.empty() && !cut && !copy && !renamed && !careless()) {
        world_.fail("torn", path + ": " + std::string(torn));
    }
    if (writers.size() > 1) world_.fail("two-writers", path);
}

void Oracle::judge_numbers(const std::string& run,
                           std::map<std::string, std::vector<Line>>& streams) {
    for (auto& [name, lines] : streams) {
        std::sort(lines.begin(), lines.end(),
                  [](const Line& a, const Line& b) { return a.seq < b.seq; });
        for (std::size_t i = 0; i < lines.size(); ++i) {
            if (lines[i].seq != i) {
                return world_.fail("numbers", run + "/" + name + ": " +
                                                  std::to_string(lines[i].seq) +
                                                  " in the place of " + std::to_string(i));
            }
        }
    }
}

void Oracle::judge_writers(const std::map<Key, unsigned>& count) {
    std::vector<Key> twice;
    std::vector<Key> lost;
    for (const auto& [key, times] : count) {
        if (times > 1 && !moved_lines(key)) twice.push_back(key);
        const auto found = writers_.find(key.first);
        if (found == writers_.end() || key.second > found->second.acked ||
            (key.second == found->second.acked && !found->second.killed)) {
            world_.fail("invented", describe({key}));
        }
    }
    for (const auto& [number, facts] : writers_) {
        const std::uint64_t safe = facts.power                      ? facts.durable
                                   : facts.killed && facts.ringless ? facts.promised
                                                                    : facts.acked;
        for (std::uint64_t n = 0; n < safe; ++n) {
            const Key key{number, n};
            if (!count.contains(key) && !excused_.contains(key)) lost.push_back(key);
        }
    }
    if (!twice.empty()) world_.fail("duplicate", describe(twice));
    if (!lost.empty()) world_.fail("lost", describe(lost));
}

std::uint64_t Oracle::acked() const noexcept {
    std::uint64_t all = 0;
    for (const auto& [number, facts] : writers_) all += facts.acked;
    return all;
}

}  // namespace sim
