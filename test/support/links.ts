import { posix } from 'node:path';

/** A page in Markdown, by its path from the root. */
export interface Page {
  path: string;
  text: string;
}

/** What links may lead to. */
export interface World {
  /** Where the repository is read, as in its package.json. */
  repository: string;
  /** The names of the packages that have a page at the registry. */
  packages: readonly string[];
  /** Whether a file or folder lies there, by its path from the root. */
  exists(path: string): boolean;
  page(path: string): Page | undefined;
  /** Whether the page goes into a package, where nothing of the repository lies beside it. */
  packed: boolean;
}

const REGISTRY = 'https://www.npmjs.com/package/';

/** What is wrong with the links of a page; those to other sites are taken as they are. */
export function linkFaults(page: Page, world: World): string[] {
  return linksOf(page.text).flatMap((link) => {
    const problem = problemOf(link, page, world);
    return problem === undefined ? [] : [`${page.path}: ${link} ${problem}`];
  });
}

function problemOf(link: string, page: Page, world: World): string | undefined {
  const { repository, packages, packed } = world;
  if (link.startsWith(REGISTRY)) {
    const name = link.slice(REGISTRY.length);
    return name.startsWith('@escrowmq/') && !packages.includes(name)
      ? 'is no package of ours'
      : undefined;
  }
  const inRepository = new RegExp(`^${repository}/(?:blob|tree)/main/([^#]*)#?(.*)$`).exec(link);
  if (inRepository !== null) return missing(inRepository[1] ?? '', inRepository[2] ?? '', world);
  if (link.startsWith(`${repository}#`)) {
    const anchor = link.slice(repository.length + 1);
    return anchor === 'readme' ? undefined : missing('README.md', anchor, world);
  }
  if (/^[a-z]+:/.test(link)) return undefined;
  const [path = '', anchor = ''] = link.split('#', 2);
  if (path === '') return anchorProblem(page, anchor);
  if (packed) return 'leads out of the package: say it as an address in the repository';
  return missing(posix.join(posix.dirname(page.path), path), anchor, world);
}

function missing(path: string, anchor: string, { exists, page }: World): string | undefined {
  if (!exists(path)) return 'leads nowhere';
  const target = page(path);
  return anchor === '' || target === undefined ? undefined : anchorProblem(target, anchor);
}

function anchorProblem({ path, text }: Page, anchor: string): string | undefined {
  return anchorsOf(text).has(anchor) ? undefined : `names a heading that ${path} has not`;
}

/** Without code, in which nothing is a link and nothing a heading. */
const withoutFences = (text: string) => text.replace(/^(```+|~~~+)[\s\S]*?^\1/gm, '');

function linksOf(text: string): string[] {
  const prose = withoutFences(text).replace(/`[^`\n]*`/g, '');
  const patterns = [
    /\]\(([^)\s]+)(?:\s+"[^"]*")?\)/g,
    /^\[[^\]]+\]:\s*(\S+)/gm,
    /\s(?:href|src|srcset)="([^"]+)"/g,
  ];
  return patterns.flatMap((pattern) => [...prose.matchAll(pattern)].map(([, link = '']) => link));
}

/** The anchors that GitHub and npm give the headings of a page. */
function anchorsOf(text: string): Set<string> {
  const seen = new Map<string, number>();
  const headings = [...withoutFences(text).matchAll(/^#{1,6}\s+(.*)$/gm)];
  return new Set(
    headings.map(([, heading = '']) => {
      const slug = heading
        .trim()
        .replace(/\[([^\]]*)\]\([^)]*\)/g, '$1')
        .toLowerCase()
        .replace(/[^\p{L}\p{N}\s_-]/gu, '')
        .replace(/\s/g, '-');
      const times = seen.get(slug) ?? 0;
      seen.set(slug, times + 1);
      return times === 0 ? slug : `${slug}-${times}`;
    }),
  );
}
