#include "disk.hpp"

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <utility>

#include "oracle.hpp"

namespace sim {

std::uint64_t draw(std::uint64_t& seed) noexcept {  // splitmix64
    std::uint64_t x = seed += 0x9E3779B97F4A7C15ULL;
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9ULL;
    x = (x ^ (x >> 27)) * 0x94D049BB133111EBULL;
    return x ^ (x >> 31);
}

// ---- bytes ------------------------------------------------------------------------------------------

Bytes::Bytes(std::string_view content) {
    resize(content.size());
    if (!content.empty()) std::memcpy(at_, content.data(), content.size());
}

Bytes::~Bytes() { std::free(at_); }

void Bytes::resize(std::size_t size) {
    if (size > room_) {
        const std::size_t room = (std::max(size, 2 * room_) + 1023) & ~std::size_t{1023};
        char* const fresh = static_cast<char*>(std::aligned_alloc(64, room));
        if (fresh == nullptr) std::abort();
        if (size_ != 0) std::memcpy(fresh, at_, size_);
        std::free(at_);
        at_ = fresh;
        room_ = room;
    }
    if (size > size_) std::memset(at_ + size_, 0, size - size_);
    size_ = size;
}

Description::~Description() {
    if (node->locked == this) node->locked = nullptr;
    std::erase(node->shared, this);
}

// ---- names ------------------------------------------------------------------------------------------

Disk::Disk() {
    auto root = std::make_unique<Node>();
    root->inode = 2;
    root->directory = true;
    root->mode = S_IFDIR | 0755;
    root->links = 2;
    nodes_.push_back(std::move(root));
}

Node* Disk::find(Node* below, std::string_view path) {
    Node* at = path.starts_with('/') ? root() : below;
    while (at != nullptr && !path.empty()) {
        const std::size_t slash = path.find('/');
        const std::string_view part = path.substr(0, slash);
        path.remove_prefix(slash == path.npos ? path.size() : slash + 1);
        if (part.empty() || part == ".") continue;
        if (!at->directory) {
            errno = ENOTDIR;
            return nullptr;
        }
        const auto found = at->names.find(std::string(part));
        at = found == at->names.end() ? nullptr : found->second;
    }
    if (at == nullptr) errno = ENOENT;
    return at;
}

Node* Disk::parent(Node* below, std::string_view path, std::string& name) {
    const std::size_t slash = path.rfind('/');
    name = path.substr(slash == path.npos ? 0 : slash + 1);
    if (slash == path.npos) return below;
    Node* const found = find(below, path.substr(0, std::max<std::size_t>(slash, 1)));
    if (found != nullptr && !found->directory) {
        errno = ENOTDIR;
        return nullptr;
    }
    return found;
}

void Disk::put(Node* directory, const std::string& name, Node* node) {
    const auto at = directory->names.find(name);
    Node* const before = at == directory->names.end() ? nullptr : at->second;
    if (before != nullptr) {
        before->links -= before->directory ? 2 : 1;
        if (before->links == 0 && oracle != nullptr) oracle->note_removed(*before, name);
    }
    if (node == nullptr) {
        directory->names.erase(name);
    } else {
        directory->names[name] = node;
        node->links += node->directory ? 2 : 1;
    }
    directory->changed_ns = now_ns;
    if (keeps_platter) journal_.push_back({directory, name, before, node});
}

Node* Disk::make(Node* directory, const std::string& name, bool is_directory, mode_t mode) {
    if (directory->links == 0) {  // removed, but open
        errno = ENOENT;
        return nullptr;
    }
    auto node = std::make_unique<Node>();
    node->inode = nodes_.size() + 10;
    node->directory = is_directory;
    node->mode = mode | (is_directory ? S_IFDIR : S_IFREG);
    node->changed_ns = now_ns;
    if (!is_directory) node->bytes = std::make_shared<Bytes>();
    nodes_.push_back(std::move(node));
    put(directory, name, nodes_.back().get());
    return nodes_.back().get();
}

int Disk::unlink(Node* directory, const std::string& name, bool directories) {
    const auto found = directory->names.find(name);
    errno = 0;
    if (found == directory->names.end()) {
        errno = ENOENT;
    } else if (found->second->directory != directories) {
        errno = directories ? ENOTDIR : EISDIR;
    } else if (directories && !found->second->names.empty()) {
        errno = ENOTEMPTY;
    }
    if (errno != 0) return -1;
    put(directory, name, nullptr);
    return 0;
}

int Disk::rename(Node* from, const std::string& name, Node* to, const std::string& to_name) {
    const auto found = from->names.find(name);
    if (found == from->names.end() || to->links == 0) {
        errno = ENOENT;
        return -1;
    }
    Node* const node = found->second;
    const auto target = to->names.find(to_name);
    if (target != to->names.end() && target->second->directory) {
        errno = EEXIST;
        return -1;
    }
    put(to, to_name, node);  // the journal takes both; one is never undone alone, see lose_power()
    put(from, name, nullptr);
    return 0;
}

// ---- bytes of files ---------------------------------------------------------------------------------

void Disk::write(Node& node, std::string_view bytes, std::size_t offset) {
    const std::size_t end = offset + bytes.size();
    const std::size_t before = node.bytes->size();
    if (end > before) node.bytes->resize(end);
    std::memcpy(node.bytes->data() + offset, bytes.data(), bytes.size());
    node.changed_ns = now_ns;
    if (!keeps_platter) return;
    node.dirty.resize((node.bytes->size() + node.page() - 1) / node.page());
    for (std::size_t p = std::min(before, offset) / node.page(); p * node.page() < end; ++p) {
        node.dirty[p] = true;
    }
}

void Disk::cut(Node& node, std::size_t size) {
    if (oracle != nullptr) oracle->note_cut(node, size);
    node.bytes->resize(size);
    node.changed_ns = now_ns;
    if (!keeps_platter) return;
    node.dirty.resize((size + node.page() - 1) / node.page());
    if (size % node.page() != 0) node.dirty[size / node.page()] = true;
}

void Disk::put_page(Node& node, std::size_t page) {
    const std::size_t begin = page * node.page();
    const std::string_view all = node.bytes->view();
    if (begin >= all.size()) return;
    const std::string_view bytes = all.substr(begin, node.page());
    if (node.platter.size() < begin + bytes.size()) node.platter.resize(begin + bytes.size(), '\0');
    node.platter.replace(begin, bytes.size(), bytes);
}

void Disk::sync(Node& node) {
    if (!keeps_platter) return;
    for (std::size_t p = 0; p < node.dirty.size(); ++p) {
        if (node.dirty[p] || node.mapped) put_page(node, p);
        node.dirty[p] = false;
    }
    node.platter.resize(node.bytes->size(), '\0');
    journal_.clear();
}

void Disk::fail_sync(Node& node, std::uint64_t chance) {
    sync_failed = true;
    for (std::size_t p = 0; p < node.dirty.size(); ++p) {
        if (node.dirty[p] && draw(chance) % 2 == 0) put_page(node, p);
        node.dirty[p] = false;
    }
}

void Disk::write_back(std::uint64_t chance) {
    for (const auto& node : nodes_) {
        if (node->directory) continue;
        if (node->mapped) node->dirty.assign(node->bytes->size() / node->page(), true);
        for (std::size_t p = 0; p < node->dirty.size(); ++p) {
            if (!node->dirty[p] || draw(chance) % 2 != 0) continue;
            put_page(*node, p);
            node->dirty[p] = false;
        }
    }
}

void Disk::lose_power(std::uint64_t chance) {
    // A prefix of the changes of names is there. Both halves of a rename are one change.
    std::size_t kept = journal_.empty() ? 0 : draw(chance) % (journal_.size() + 1);
    if (kept > 0 && kept < journal_.size() && journal_[kept].after == nullptr &&
        journal_[kept].before == journal_[kept - 1].after) {
        ++kept;
    }
    std::vector<Change> undone(journal_.begin() + static_cast<std::ptrdiff_t>(kept),
                               journal_.end());
    for (auto change = undone.rbegin(); change != undone.rend(); ++change) {
        put(change->directory, change->name, change->before);
    }
    journal_.clear();
    write_back(draw(chance));
    for (const auto& node : nodes_) {
        if (node->directory) continue;
        // The size follows the pages, or is what it was.
        if (draw(chance) % 2 == 0 && node->platter.size() < node->bytes->size()) {
            node->platter.resize(node->bytes->size(), '\0');
        }
        if (draw(chance) % 2 == 0 && node->platter.size() > node->bytes->size()) {
            node->platter.resize(node->bytes->size());
        }
        node->bytes = std::make_shared<Bytes>(node->platter);
        node->dirty.assign((node->bytes->size() + node->page() - 1) / node->page(), false);
        node->locked = nullptr;
        node->shared.clear();
    }
}

}  // namespace sim
