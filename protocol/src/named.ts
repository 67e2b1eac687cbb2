import type { z } from 'zod';

/**
 * A schema whose values have names of their own: `Output` is what it makes, `Input` what it takes. It
 * does what any zod schema does; what only schemas of one kind can do, such as `extend`, is not shown.
 */
export interface Schema<Output, Input = Output> extends z.ZodType<Output, Input> {}

/**
 * Whether two types are one. Assigning each to the other would not do: that overlooks an optional
 * field that only one of them has.
 */
type Same<One, Other> =
  (<T>() => T extends One ? 1 : 2) extends <T>() => T extends Other ? 1 : 2 ? true : false;

/** Names, in the compiler's error, the fields that an interface and its schema say differently. */
interface Differs<Field> {
  'the schema and its interface differ in': Field;
}

type Field<One, Other, Name> = Name extends keyof One & keyof Other
  ? Same<Pick<One, Name>, Pick<Other, Name>> extends true
    ? never
    : Name
  : Name;
type DifferingFields<One, Other, Name = keyof One | keyof Other> = Name extends unknown
  ? Field<One, Other, Name>
  : never;

type Agrees<Made, Meant> =
  Same<Made, Meant> extends true ? unknown : Differs<DifferingFields<Made, Meant>>;

/**
 * Gives a schema its named types. An editor shows a named interface with what is written at its
 * fields; of types taken from a schema it shows neither. The compiler keeps the two in step: a field
 * that only one of them has, or has otherwise, does not compile.
 *
 * @example
 * export interface Point { x: number }
 * export const Point = named<Point>()(z.strictObject({ x: z.number() }));
 */
export const named =
  <Output, Input = Output>() =>
  <S extends z.ZodType>(
    schema: S & Agrees<z.output<S>, Output> & Agrees<z.input<S>, Input>,
  ): Schema<Output, Input> =>
    schema as z.ZodType<unknown, unknown> as Schema<Output, Input>;
