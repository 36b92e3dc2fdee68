/**
 * Hold which routines are selected, by id: also those that the list does not show at the moment.
 */

export class Selection {
  /** @type {Set<number>} */
  ids = new Set();
  /** The routine that was selected or unselected last, where a range begins; null if there is none. @type {number | null} */
  anchor = null;

  /**
   * Select or unselect routines.
   *
   * @param {number[]} ids
   * @param {boolean} isSelected
   */
  set(ids, isSelected) {
    for (const id of ids) isSelected ? this.ids.add(id) : this.ids.delete(id);
    this.anchor = ids.at(-1) ?? this.anchor;
  }

  /** Forget routines that are not among these: they were deleted. @param {number[]} ids */
  keepOnly(ids) {
    const known = new Set(ids);
    for (const id of this.ids) if (!known.has(id)) this.ids.delete(id);
  }

  clear() {
    this.ids.clear();
    this.anchor = null;
  }
}
